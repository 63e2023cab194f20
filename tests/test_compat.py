"""torchvision imports whether or not its compiled part fits the installed torch."""

from types import SimpleNamespace

import pytest
import torch

from lessons import compat


def test_torchvision_imports_and_its_python_parts_work():
    torchvision = compat.import_torchvision()
    assert compat.import_torchvision() is torchvision
    from torchvision.models import resnet18
    from torchvision.transforms import v2

    assert resnet18(num_classes=10).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert v2.functional.horizontal_flip(torch.arange(3.0).expand(3, 1, 3))[0, 0].tolist() == [2, 1, 0]


def test_missing_operator_is_declared_and_the_import_repeated(monkeypatch):
    attempts = []

    def import_module(name):
        attempts.append(name)
        if len(attempts) == 1:
            raise RuntimeError("operator torchvision::nms does not exist")
        return "the module"

    modules = {"torchvision": 1, "torchvision.ops": 2, "torchvision_like": 3}
    monkeypatch.setattr(compat, "importlib", SimpleNamespace(import_module=import_module))
    monkeypatch.setattr(compat, "sys", SimpleNamespace(modules=modules))
    assert compat.import_torchvision() == "the module"
    assert attempts == ["torchvision", "torchvision"]
    assert modules == {"torchvision_like": 3}, "half-loaded modules are dropped, others kept"
    assert hasattr(torch.ops.torchvision, "nms") and hasattr(torch.ops.torchvision, "qnms")


@pytest.mark.parametrize("error", [RuntimeError("out of file handles"), ImportError("No module named 'torchvision'")])
def test_other_failures_are_not_hidden(monkeypatch, error):
    def import_module(name):
        raise error

    monkeypatch.setattr(compat, "importlib", SimpleNamespace(import_module=import_module))
    with pytest.raises(type(error), match=str(error)):
        compat.import_torchvision()
