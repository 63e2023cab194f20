"""The checking engine as a learner meets it, on three exercises made up for these tests."""

import json
import linecache
import signal
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lessons import exercises, store
from lessons.errors import SettingError, StorageError
from lessons.exercises import display
from lessons.exercises.engine import Exercise, Wrong, judge
from lessons.exercises.expect import (
    call,
    expect_close_grad,
    expect_equal,
    expect_shape,
    expect_tensor,
    load_weights,
    randomise,
    seeded,
)
from lessons.exercises.source import solved_source, source_of


def depth_to_n(depth):
    """The n of a CIFAR ResNet of this depth, 6n + 2; ValueError where there is none."""
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"depth {depth} is not 6n+2")
    return (depth - 2) // 6


def check_depth_to_n(candidate):
    for depth, n in ((8, 1), (20, 3), (56, 9)):
        causes = {"each block holds two": (depth - 2) // 3, "integer division": (depth - 2) / 6}
        expect_equal(call(candidate, depth), n, f"depth_to_n({depth})", causes=causes)
    try:
        got = call(candidate, 21)
    except ValueError:
        return
    raise Wrong(f"depth_to_n(21) must raise ValueError, but returned {got!r}")


def add_residual(x, branch):
    """relu(x + branch) of two tensors (B, C, H, W)."""
    return torch.relu(x + branch)


def check_add_residual(candidate):
    x, branch = seeded(2, 3, 4, 4), seeded(2, 3, 4, 4, seed=1)
    early = {"ReLU was applied before the addition": lambda x, branch: torch.relu(branch) + x}
    expect_close_grad(candidate, lambda x, branch: (x + branch).clamp(min=0), x, branch, causes=early)


class Scale(nn.Module):
    """x (B, D) times a learned weight (D,)."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * self.weight


def check_scale(candidate):
    module = call(candidate, 3)
    load_weights(module, {"weight": torch.tensor([0.5, 2.0, -1.0])}, "Scale(3)")
    expect_tensor(call(module, torch.ones(2, 3)), torch.tensor([[0.5, 2.0, -1.0]] * 2), "Scale(3)(x)", grad=True)


SHARED = {
    "minutes": 5,
    "difficulty": 1,
    "contract": "One sentence.",
    "hints": ("Why?", "a shape", "first `this`, then that"),
}
DEPTH = Exercise(id="1.1", title="Depth", solution=depth_to_n, check=check_depth_to_n, covers="three depths", **SHARED)
RESIDUAL = Exercise(id="1.2", title="Add", solution=add_residual, check=check_add_residual, **SHARED)
SCALE = Exercise(id="2.1", title="Scale", solution=Scale, check=check_scale, **SHARED)
OPEN = Exercise(id="1.3", title="Deeper", open=True, self_check=("Is the baseline in the figure?",), **SHARED)


@pytest.fixture
def course(monkeypatch):
    """A course of two lessons."""
    lessons = {1: (DEPTH, RESIDUAL, OPEN), 2: (SCALE,)}
    monkeypatch.setattr(exercises, "written", lambda: [1, 2])
    monkeypatch.setattr(exercises, "load", lessons.__getitem__)


def cell(source: str, name: str, **known):
    """What a notebook cell with this source defines; it sees what is `known`."""
    filename = str(Path(tempfile.gettempdir()) / f"ipykernel_{abs(hash(source))}.py")
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    namespace = {"torch": torch, "nn": nn, "time": time, "__name__": "__main__", **known}
    exec(compile(source, filename, "exec"), namespace)
    return namespace[name]


# Verdicts


def test_passed():
    verdict = judge(DEPTH, depth_to_n)
    assert verdict and verdict.status == "passed" and verdict.mark == "✓"
    assert verdict.text == "✓ 1.1 Depth: passed\nChecked: three depths."


@pytest.mark.parametrize(
    "body", ["raise NotImplementedError", "raise NotImplementedError('your turn')", "pass", "...", '"""Doc."""']
)
def test_unchanged_stub_is_not_attempted(body):
    verdict = judge(DEPTH, cell(f"def depth_to_n(depth):\n    {body}\n", "depth_to_n"))
    assert verdict.status == "not attempted" and "`depth_to_n` is still the stub" in verdict.text
    assert 'hint("1.1")' in verdict.text


def test_stub_is_found_without_running_it():
    source = "ran = []\ndef depth_to_n(depth, _log=ran.append(1)):\n    '''Doc.'''\n    raise NotImplementedError\n"
    assert judge(DEPTH, cell(source, "depth_to_n")).status == "not attempted"


def test_half_done_code_that_still_raises_not_implemented():
    source = "def depth_to_n(depth):\n    n = depth // 6\n    raise NotImplementedError\n"
    verdict = judge(DEPTH, cell(source, "depth_to_n"))
    assert verdict.status == "not attempted" and "Line 3 still raises NotImplementedError" in verdict.text


def test_class_with_one_stub_left_is_not_attempted():
    source = "class Scale(nn.Module):\n    def __init__(self, width):\n        super().__init__()\n\n" + (
        "    def forward(self, x):\n        raise NotImplementedError\n"
    )
    verdict = judge(SCALE, cell(source, "Scale"))
    assert verdict.status == "not attempted" and "`Scale.forward` is still the stub" in verdict.text
    assert judge(SCALE, cell("class Scale(nn.Module):\n    pass\n", "Scale")).status == "not attempted"


def test_module_without_forward_is_the_learners_error():
    source = "class Scale(nn.Module):\n    def __init__(self, width):\n        super().__init__()\n"
    source += "        self.weight = nn.Parameter(torch.ones(width))\n"
    verdict = judge(SCALE, cell(source, "Scale"))
    assert verdict.status == "raised" and 'missing the required "forward"' in verdict.text


def test_wrong_says_expected_came_cause_and_hint():
    verdict = judge(DEPTH, lambda depth: (depth - 2) // 3)
    assert verdict.status == "wrong" and not verdict
    assert "depth_to_n(8) is 2; expected 1." in verdict.text
    assert "Likely cause: each block holds two" in verdict.text and 'hint("1.1", 2)' in verdict.text


def test_raised_shows_the_learners_lines_and_arguments_only():
    source = "def inner(depth):\n    return depth.shape\n\ndef depth_to_n(depth):\n    return inner(depth)\n"
    verdict = judge(DEPTH, cell(source, "depth_to_n"))
    assert verdict.status == "raised" and verdict.mark == "!"
    assert verdict.details.splitlines() == [
        "line 5 of your cell, in depth_to_n:",
        "    return inner(depth)",
        "line 2 of your cell, in inner:",
        "    return depth.shape",
        "AttributeError: 'int' object has no attribute 'shape'",
        "called with depth: 8",
    ]


def test_error_inside_torch_is_shown_at_the_learners_line():
    verdict = judge(
        RESIDUAL, cell("def add_residual(x, branch):\n    return torch.cat([x, branch[0]])\n", "add_residual")
    )
    assert verdict.status == "raised" and "return torch.cat([x, branch[0]])" in verdict.text
    assert "called with x: a tensor (2, 3, 4, 4) float32" in verdict.text and "torch/" not in verdict.text


@pytest.mark.parametrize("error", ["SystemExit", "KeyboardInterrupt", "RecursionError"])
def test_any_error_of_the_learner_is_a_verdict(error):
    body = "return depth_to_n(depth)" if error == "RecursionError" else f"raise {error}('stop')"
    verdict = judge(DEPTH, cell(f"def depth_to_n(depth):\n    {body}\n", "depth_to_n"))
    assert verdict.status == "raised" and error in verdict.text and verdict.text.count("\n") < 12


def test_open_exercise_asks_its_questions():
    verdict = judge(OPEN)
    assert verdict.status == "open" and "- Is the baseline in the figure?" in verdict.text


# What a learner may hand over


def test_misuse_is_told_kindly(course, capsys):
    for arguments, phrase in (
        (("1.1",), 'Give your function as the second argument: `check("1.1", depth_to_n)`'),
        (("1.2", torch.ones(2)), "not what it returns (a tensor (2,) float32)"),
        (("2.1", Scale(3)), "takes the class itself, not a module Scale"),
        (("1.1", Scale), "`Scale` is a class"),
        (("1.12", depth_to_n), 'There is no exercise "1.12". The nearest: 1.2, 1.1'),
        (("5.1", depth_to_n), "Lesson 5 has no exercises yet"),
        (("spam", depth_to_n), 'no exercise "spam"'),
        ((1.2, depth_to_n), 'in quotes, such as "1.2"'),
        ((depth_to_n,), "as the first argument"),
    ):
        verdict = exercises.check(*arguments)
        assert verdict.status == "not attempted" and phrase in capsys.readouterr().out
    assert "a number above 0" in exercises.check("1.1", depth_to_n, seconds=-1).text


@pytest.mark.parametrize("function", [lambda: 1, lambda depth, extra: 1, lambda depth, *, mode: 1])
def test_other_signature_is_told(function):
    verdict = judge(DEPTH, function)
    assert verdict.status == "wrong" and "The check calls `depth_to_n(depth)`; yours is" in verdict.text


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        (lambda y: None, "returned None"),
        (
            lambda y: y.detach().numpy(),
            "The result is a NumPy array (2, 3, 4, 4); expected a tensor (2, 3, 4, 4) float32",
        ),
        (lambda y: y.tolist(), "The result is a list"),
        (lambda y: 3.5, "The result is 3.5"),
        (lambda y: y.double(), "has the dtype float64; expected float32"),
        (lambda y: y.to("meta"), "lies on the device meta; expected cpu"),
        (lambda y: y.flatten(1), "has the shape (2, 48); expected (2, 3, 4, 4)"),
        (lambda y: y / 0, "NaN or infinite, the first at [0, 0, 0, 0]"),
        (lambda y: y.detach(), "carries no gradient"),
        (lambda y: y + 1, "96 of 96 values differ, the first at [0, 0, 0, 0] (largest difference 1)"),
    ],
)
def test_kinds_of_wrong_results(change, phrase):
    verdict = judge(RESIDUAL, lambda x, branch: change(torch.relu(x + branch)))
    assert verdict.status == "wrong" and phrase in verdict.text


def test_wrong_gradient_and_its_cause():
    verdict = judge(RESIDUAL, lambda x, branch: torch.relu(x.detach() + branch))
    assert verdict.status == "wrong" and "The gradient of the result with respect to input 1" in verdict.text
    verdict = judge(RESIDUAL, lambda x, branch: x + torch.relu(branch))
    assert "Likely cause: ReLU was applied before the addition" in verdict.text


def test_input_changed_in_place():
    def in_place(x, branch):
        branch.data += x
        return torch.relu(branch)

    verdict = judge(RESIDUAL, in_place)
    assert "changed a tensor (2, 3, 4, 4) float32 that it was given" in verdict.text and "in-place" in verdict.text


def test_names_of_weights_are_compared():
    class Other(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.gain = nn.Parameter(torch.ones(width))

        def forward(self, x):
            return x * self.gain

    verdict = judge(SCALE, Other)
    assert "missing: weight (3,)" in verdict.text and "not expected: gain (3,)" in verdict.text
    assert judge(SCALE, Scale)


def test_an_error_in_the_check_itself_names_the_contract():
    broken = Exercise(id="1.9", title="B", solution=depth_to_n, check=lambda f: f(8).shape, **SHARED)
    verdict = judge(broken, depth_to_n)
    assert verdict.status == "raised" and "One sentence." in verdict.text


# Time, threads, random numbers

HANGS = 600  # seconds after which a test that waits gives up


@contextmanager
def no_thread_left():
    """Every thread that is started inside comes to its end."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(HANGS)
        assert not thread.is_alive(), f"{thread.name} still runs"


@pytest.mark.parametrize(
    "body",
    [
        "    while True:\n        pass\n",
        "    while True:\n        try:\n            time.sleep(0.001)\n        except Exception:\n            pass\n",
        "    tries = 0\n    while True:\n        try:\n            time.sleep(0.001)\n        except:\n"
        "            tries += 1\n            if tries > 3:\n                raise\n",
    ],
)
def test_code_that_never_returns_is_stopped(body):
    with no_thread_left():
        verdict = judge(DEPTH, cell("def depth_to_n(depth):\n" + body, "depth_to_n"), seconds=0.1)
    assert verdict.status == "wrong" and "did not return within 0.1 s" in verdict.text
    assert "still runs" not in verdict.text


def test_code_that_cannot_be_stopped_is_named():
    gate = threading.Event()  # who waits for it hears of nothing else
    with no_thread_left():
        waiting = cell("def depth_to_n(depth):\n    gate.wait()\n", "depth_to_n", gate=gate)
        verdict = judge(DEPTH, waiting, seconds=0.05)
        gate.set()
    assert "did not return within 0.05 s" in verdict.text and "restart the kernel" in verdict.text


def test_interrupt_by_the_learner_gets_through_and_stops_their_code():
    import _thread

    # A shell starts background jobs with SIGINT ignored, and Python then leaves it so.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    began = threading.Event()
    stop_button = threading.Thread(target=lambda: began.wait(HANGS) and _thread.interrupt_main())
    endless = cell("def depth_to_n(depth):\n    began.set()\n    while True: pass\n", "depth_to_n", began=began)
    try:
        with no_thread_left(), pytest.raises(KeyboardInterrupt):
            stop_button.start()
            judge(DEPTH, endless, seconds=HANGS)
    finally:
        signal.signal(signal.SIGINT, handler)


def test_without_a_limit_it_runs_in_this_thread():
    seen = []

    def spy(depth):
        seen.append(threading.current_thread())
        return depth_to_n(depth)

    assert judge(DEPTH, spy, seconds=float("inf")) and set(seen) == {threading.main_thread()}
    assert judge(DEPTH, spy) and seen[-1] is not threading.main_thread()


def test_learners_random_generator_is_given_back_and_gradients_are_on():
    state = torch.get_rng_state()

    def draws(x, branch):
        torch.rand(3)
        assert torch.is_grad_enabled()
        return torch.relu(x + branch)

    with torch.no_grad():
        assert judge(RESIDUAL, draws)
    assert torch.equal(torch.get_rng_state(), state)


# Helpers of checks


def test_expect_equal_is_strict_about_kinds():
    expect_equal({"a": [1, 2.0], "b": "x"}, {"a": (1, 2.0), "b": "x"})
    for got, want, phrase in (
        (3.0, 3, "of type float; expected 3, of type int"),
        (True, 1, "of type bool"),
        (torch.tensor(3), 3, "`.item()`"),
        (np.float32(2), 2.0, "of type float32"),
        (float("nan"), 2.0, "not a finite number"),
        (2.1, 2.0, "The result is 2.1; expected 2."),
        ([1], [1, 2], "has 1 entries; expected 2"),
        ({"a": 1}, {"a": 1, "b": 2}, "lacks the key ['b']"),
        ({"a": 1, "c": 1}, {"a": 1}, "a key too many: ['c']"),
        ((1, (2, 4)), (1, (2, 3)), "The result[1][1] is 4; expected 3"),
        (None, 3, "is None"),
        ("yes", 3, "is 'yes', of type str"),
    ):
        with pytest.raises(Wrong) as caught:
            expect_equal(got, want)
        assert phrase in f"{caught.value.message} {caught.value.cause}"


def test_expect_tensor_prints_small_tensors_and_finds_causes():
    want = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    with pytest.raises(Wrong) as caught:
        expect_tensor(want.T.contiguous(), want, causes={"transposed": lambda: want.T, "never": lambda got: got["x"]})
    assert "2 of 4 values differ, the first at [0, 1]" in caught.value.message and caught.value.cause == "transposed"
    assert caught.value.details == "expected [[1, 2],\n          [3, 4]]\ncame     [[1, 3],\n          [2, 4]]"
    with pytest.raises(Wrong) as caught:
        expect_tensor(want[0], want, causes={"only one row": lambda got: got.ndim == 1})
    assert caught.value.cause == "only one row"
    masked = torch.tensor([1.0, -torch.inf, torch.nan])
    expect_tensor(masked.clone(), masked)
    with pytest.raises(Wrong, match="NaN or infinite"):
        expect_tensor(torch.tensor([1.0, torch.inf]), torch.tensor([1.0, 2.0]))
    with pytest.raises(Wrong, match="1 of 1 values differ"):
        expect_tensor(torch.tensor(True), torch.tensor(False))


def test_expect_shape():
    expect_shape(torch.ones(2, 3), (2, 3))
    with pytest.raises(Wrong) as caught:
        expect_shape(torch.ones(3, 2), (2, 3), "patches", causes={"swapped": (3, 2)})
    assert "patches has the shape (3, 2); expected (2, 3)" in caught.value.message and caught.value.cause == "swapped"


def test_seeded_and_randomise_leave_the_global_generator_alone():
    state = torch.get_rng_state()
    assert torch.equal(seeded(2, 3), seeded(2, 3)) and not torch.equal(seeded(2, 3), seeded(2, 3, seed=1))
    assert seeded(100, high=7).unique().tolist() == list(range(7))
    norm = randomise(nn.BatchNorm2d(4))
    assert (norm.running_var > 0).all() and (norm.running_var != 1).all()
    assert (norm.weight != 1).all() and (norm.bias != 0).all() and (norm.running_mean != 0).all()
    assert torch.equal(torch.get_rng_state(), state)


# Hints, solutions, progress


def test_hints_come_one_by_one_and_are_remembered(course, capsys):
    shown = []
    for _ in range(4):
        exercises.hint("1.1")
        shown.append(capsys.readouterr().out)
    assert "hint 1 of 3" in shown[0] and "Why?" in shown[0] and 'hint("1.1", 2)' in shown[0]
    assert "hint 2 of 3" in shown[1] and "hint 3 of 3" in shown[2] and shown[3] == shown[2]
    assert 'solution("1.1")' in shown[2]
    exercises.hint("1.1", 1)
    assert shown[0] == capsys.readouterr().out
    exercises.hint("1.1", 4)
    assert "has the hints 1 to 3, not 4" in capsys.readouterr().out
    exercises.hint("9.9")
    assert "Lesson 9 has no exercises yet" in capsys.readouterr().out


def test_solution_is_shown_and_remembered(course, capsys):
    exercises.solution("1.1")
    assert source_of(depth_to_n) in capsys.readouterr().out
    exercises.solution("1.3")
    assert "Is the baseline in the figure?" in capsys.readouterr().out
    exercises.solution("1.7")
    assert "The nearest: 1." in capsys.readouterr().out
    exercises.check("1.1", depth_to_n)
    capsys.readouterr()
    exercises.progress()
    out = capsys.readouterr().out
    assert "1 passed with the solution seen" in out


def test_progress_strip(course, capsys):
    exercises.check("1.1", depth_to_n)
    exercises.check("1.1", lambda depth: 0)
    exercises.check("2.1", Scale)
    capsys.readouterr()
    exercises.progress()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12 and lines[11] == f"Kept in {exercises.record.place()}"
    assert lines[0].startswith("01  ResNet") and lines[0].endswith("1 / 2")
    assert lines[1].endswith("✓ 1 / 1") and lines[2].endswith("not written yet")


def test_progress_is_taken_along_and_merged(course, capsys, tmp_path, monkeypatch):
    """What was reached on two machines is together on the second, and a second import changes nothing."""
    exercises.check("1.1", lambda depth: 0)
    exercises.check("1.1", depth_to_n)
    exercises.hint("2.1", 3)
    file = tmp_path / "stick" / "progress.json"
    exercises.progress(export=file)
    assert f"Exported to {file}: 2 exercises." in capsys.readouterr().out

    monkeypatch.setenv("LESSONS_CACHE_DIR", str(tmp_path / "other machine"))
    exercises.check("2.1", Scale)
    exercises.check("1.1", lambda depth: 0)
    exercises.solution("1.1")
    capsys.readouterr()
    exercises.progress(merge=str(file))
    out = capsys.readouterr().out
    assert f"Merged from {file}: 2 exercises." in out and "kept all the same" not in out
    together = exercises.record.read()
    assert together["1.1"] == {"passed": 1, "tries": 2, "hints": 0, "solution": 1}
    assert together["2.1"] == {"passed": 1, "tries": 1, "hints": 3, "solution": 0}
    exercises.progress(merge=file)
    assert exercises.record.read() == together
    assert exercises.hint("2.1") is None and "hint 3 of 3" in capsys.readouterr().out


def test_an_export_writes_over_nothing(course, tmp_path):
    file = tmp_path / "progress.json"
    with pytest.raises(SettingError, match="no progress yet"):
        exercises.progress(export=file)
    assert not file.exists()
    exercises.check("1.1", depth_to_n)
    file.write_text("my thesis")
    with pytest.raises(SettingError, match="is there already and stays as it is. Name another file"):
        exercises.progress(export=file)
    assert file.read_text() == "my thesis"
    with pytest.raises(StorageError, match="a file stands where a folder is needed"):
        exercises.progress(export=file / "inside a file.json")
    with pytest.raises(SettingError, match="cannot be written .*Name another file"):
        exercises.progress(export=tmp_path / ("long" * 100 + ".json"))


def test_an_import_may_begin_with_a_byte_order_mark(course, tmp_path):
    exercises.check("1.1", depth_to_n)
    file = tmp_path / "progress.json"
    exercises.progress(export=file)
    file.write_text(file.read_text(), encoding="utf-8-sig")
    assert exercises.record.merge(file) == exercises.record.read()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{half a fi",
        "{}",
        "[" * 100_000,
        "[1, 2]",
        '{"1.1": 3}',
        '{"cells": [], "metadata": {}}',
        '{"metadata": {"hints": 3}}',
        '{"1.1": {"passed": 2, "tries": 1, "hints": 0, "solution": 0}}',
        '{"1.1": {"passed": 1, "tries": -1, "hints": 0, "solution": 0}}',
        '{"1.1": {"passed": 1, "tries": 1.5, "hints": 0, "solution": 0}}',
        None,
    ],
)
def test_other_content_is_refused_and_the_progress_stays(course, tmp_path, content):
    exercises.check("1.1", depth_to_n)
    before = exercises.record.place().read_bytes()
    file = tmp_path / "file.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SettingError, match="Your progress is as before"):
        exercises.progress(merge=file)
    assert exercises.record.place().read_bytes() == before
    assert content is None or file.read_text() == content, "another's file is not moved aside"


def test_exercises_of_another_version_are_said_and_kept(course, tmp_path, capsys):
    file = tmp_path / "file.json"
    entry = {"passed": 1, "tries": 4, "hints": 0, "solution": 0}
    file.write_text(json.dumps({"1.1": entry, "12.3": entry}))
    exercises.progress(merge=file)
    assert "No exercises of this version, kept all the same: 12.3." in capsys.readouterr().out
    exercises.check("1.1", depth_to_n)
    assert exercises.record.read() == {"1.1": entry | {"tries": 5}, "12.3": entry}


def test_a_full_disk_while_merging_leaves_the_progress(course, tmp_path, monkeypatch):
    exercises.check("1.1", depth_to_n)
    exercises.progress(export=tmp_path / "file.json")
    before = exercises.record.place().read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.os, "fsync", full)
    with pytest.raises(StorageError, match="Disk full"):
        exercises.progress(merge=tmp_path / "file.json")
    assert exercises.record.place().read_bytes() == before


def test_progress_that_may_not_be_read_is_not_written_over(course, monkeypatch, capsys):
    exercises.check("1.1", depth_to_n)
    before = exercises.record.place().read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "no")))
        assert exercises.check("2.1", Scale)
    assert "could not be saved: No permission" in capsys.readouterr().out
    assert exercises.record.place().read_bytes() == before


def test_two_kernels_lose_nothing(course):
    ids = [f"1.{i}" for i in range(12)]
    workers = [threading.Thread(target=exercises.record.update, args=(i,), kwargs={"passed": True}) for i in ids]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert set(exercises.record.read()) == set(ids)


@pytest.mark.parametrize("content", ["{half a fi", "[1, 2]", '{"1.1": 3}', '{"1.1": {"hints": "two"}}', ""])
def test_damaged_progress_is_set_aside_and_said(course, capsys, content):
    path = store.cache_dir("progress.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    assert exercises.check("1.1", depth_to_n)
    assert "damaged" in capsys.readouterr().err
    assert path.with_name("progress.json.damaged").read_text() == content
    assert exercises.record.read()["1.1"]["passed"] == 1


def test_a_cache_that_cannot_be_written_never_breaks_a_check(course, monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LESSONS_CACHE_DIR", str(tmp_path / "file"))
    assert exercises.check("1.1", depth_to_n)
    out = capsys.readouterr().out
    assert "1.1 Depth: passed" in out and out.count("Your progress could not be saved") == 1
    exercises.hint("1.1")
    exercises.solution("1.1")
    exercises.progress()
    out = capsys.readouterr().out
    assert 'hint("1.1", 2)' in out and out.count("could not be saved") == 2


def test_a_full_disk_never_breaks_a_check(course, monkeypatch, capsys):
    def full(path, obj):
        raise store.StorageError("Disk full.")

    monkeypatch.setattr(exercises.record, "write_json", full)
    assert exercises.check("1.1", depth_to_n)
    assert "(Your progress could not be saved: Disk full.)" in capsys.readouterr().out


def test_strict_mode_raises_unless_passed_or_open(course, monkeypatch):
    monkeypatch.setenv("LESSONS_STRICT", "1")
    assert exercises.check("1.1", depth_to_n)
    assert exercises.check("1.3").status == "open"
    for arguments in (("1.1", lambda depth: 0), ("1.1",), ("7.7", depth_to_n)):
        with pytest.raises(AssertionError):
            exercises.check(*arguments)


def test_listing(course):
    first = exercises.listing()[0]
    assert first["id"] == "1.1" and first["lesson"] == 1 and first["hints"] == 3 and first["open"] is False
    assert [row["id"] for row in exercises.listing()] == ["1.1", "1.2", "1.3", "2.1"]


def test_load_of_a_lesson_without_exercises(monkeypatch):
    with pytest.raises(exercises.SettingError, match="Lesson 12 has no exercises"):
        exercises.load(12)


# Display


def test_rich_verdict_is_escaped_and_the_same_each_time(monkeypatch):
    shown = []
    monkeypatch.setattr(display, "show", lambda plain, rich="", markdown="": shown.append((plain, rich)))
    for _ in range(2):
        display.verdict(judge(DEPTH, cell("def depth_to_n(depth):\n    return depth < '<b>'\n", "depth_to_n")))
    assert shown[0] == shown[1]
    plain, rich = shown[0]
    assert "depth &lt; '&lt;b&gt;'" in rich and "depth < '<b>'" in plain


def test_in_a_notebook_it_is_shown_once_with_plain_text_beside(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.v4.new_notebook()
    for source in (
        "import sys, test_exercise_engine as t; from lessons import exercises\n"
        "exercises.written = lambda: [1]; exercises.load = lambda n: (t.DEPTH, t.RESIDUAL, t.OPEN)",
        "def depth_to_n(depth):\n    raise NotImplementedError\nexercises.check('1.1', depth_to_n)",
        "def depth_to_n(depth):\n    print('here')\n    return depth.n\nexercises.check('1.1', depth_to_n)",
        "class Scale:\n    pass\nexercises.check('1.1', Scale); exercises.solution('1.1'); exercises.progress()",
        "def depth_to_n(depth):\n    while True: pass\nexercises.check('1.1', depth_to_n, seconds=0.1)",
    ):
        notebook.cells.append(nbformat.v4.new_code_cell(source))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    nbclient.NotebookClient(notebook, timeout=HANGS, startup_timeout=HANGS, kernel_name="python3").execute()
    outputs = [cell.outputs for cell in notebook.cells]
    assert [output.output_type for output in outputs[1]] == ["display_data"]
    assert "○ 1.1 Depth: not attempted yet" in outputs[1][0].data["text/plain"]
    assert outputs[1][0].data["text/html"].startswith("<div")
    assert "line 3 of your cell, in depth_to_n:\n        return depth.n" in outputs[2][-1].data["text/plain"]
    assert any(output.get("text", "").startswith("here") for output in outputs[2])
    assert "```python\ndef depth_to_n" in outputs[3][1].data["text/markdown"]
    assert "linear-gradient" in outputs[3][2].data["text/html"]
    assert "did not return within 0.1 s" in outputs[4][0].data["text/plain"]


# Making the solved notebook


def test_solved_source_replaces_the_stub_and_nothing_else():
    source = "%matplotlib inline\nimport torch\n\n@torch.no_grad()\ndef depth_to_n(depth):\n    '''Doc.'''\n"
    source += "    raise NotImplementedError  # yours\n\nif True:\n    !ls\nprint(depth_to_n(8))  # kept\n"
    solved = solved_source(source, [DEPTH, RESIDUAL, OPEN])
    head, tail = source[: source.index("def depth")], source[source.index("\nif True") :]
    assert solved == head + source_of(depth_to_n) + tail


def test_solved_source_of_classes_and_several_stubs():
    source = (
        "class Scale(nn.Module):\n    def forward(self, x):\n        ...\n\n\ndef depth_to_n(depth):\n    ...\n\nx = 1"
    )
    solved = solved_source(source, [DEPTH, SCALE])
    assert solved == source_of(Scale) + "\n\n" + source_of(depth_to_n) + "\nx = 1"
    assert solved_source("x = 1\n", [DEPTH]) == "x = 1\n"
    with pytest.raises(exercises.SettingError, match="line 1"):
        solved_source("def depth_to_n(:\n", [DEPTH])
