"""Every test gets an empty cache of its own, no network, none of the caller's switches, and the same chance."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch reads it when it is imported
os.environ["HF_HUB_OFFLINE"] = "1"
for name in [key for key in os.environ if key.startswith("LESSONS_") and key != "LESSONS_CACHE_DIR"]:
    del os.environ[name]  # kernels that a whole file shares start before `isolated` does

import random  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402


def pytest_addoption(parser):
    help = "what torch, NumPy and random start from before each test (0); every test passes with any"
    parser.addoption("--global-seed", type=int, default=0, metavar="N", help=help)


@pytest.fixture(autouse=True)
def isolated(tmp_path, monkeypatch):
    """An empty cache under tmp_path; LESSONS_* switches of the caller's shell are removed."""
    for name in [key for key in os.environ if key.startswith("LESSONS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LESSONS_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture(autouse=True)
def same_start(request):
    """Seeded generators, and torch's default type as the nearest `floats` mark asks; both do not outlive the test."""
    seed = request.config.getoption("--global-seed")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    mark, threads = request.node.get_closest_marker("floats"), torch.get_num_threads()
    torch.set_default_dtype(getattr(torch, mark.args[0]) if mark else torch.float32)
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(threads)
