"""Generated for every exercise of every lesson: what its check must let pass, and what it must not."""

import __future__

import ast
import functools
import inspect
import json
import linecache
import re
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lessons import exercises
from lessons.exercises.engine import Exercise, judge
from lessons.exercises.source import solved_source, source_of

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
EVERY = exercises.all_exercises()
CHECKED = [exercise for exercise in EVERY if not exercise.open]
MUTANTS = [
    pytest.param(exercise, answer, phrase, id=f"{exercise.id}-{position}")
    for exercise in CHECKED
    for position, (answer, phrase) in enumerate(exercise.wrong, 1)
]
every = pytest.mark.parametrize("exercise", EVERY, ids=lambda exercise: exercise.id)
checked = pytest.mark.parametrize("exercise", CHECKED, ids=lambda exercise: exercise.id)


def defined(source: str, exercise: Exercise) -> object:
    """What this source defines under the exercise's name, run as a notebook cell: its lines can be read back.

    It sees the names of the lesson file, as the learner's cell sees those of the notebook.
    """
    filename = f"<cell {exercise.id} {hash(source)}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    namespace = {**vars(sys.modules[exercise.solution.__module__]), "torch": torch, "nn": nn, "__name__": "cell"}
    exec(compile(source, filename, "exec", flags=__future__.annotations.compiler_flag), namespace)
    return namespace[exercise.name]


def stub_source(solution) -> str:
    """The stub of a solution: its signature and docstring, for a class those of its methods."""
    tree = ast.parse(source_of(solution))
    for node in [tree.body[0], *(tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else ())]:
        if isinstance(node, ast.FunctionDef):
            docstring = node.body[:1] if ast.get_docstring(node) else []
            node.body = docstring + ast.parse("raise NotImplementedError").body
    tree.body[0].decorator_list = []
    return ast.unparse(ast.fix_missing_locations(tree))


def spoiled(solution, change):
    """The solution with `change` applied to what it returns (a module: to what its forward returns)."""
    if not isinstance(solution, type):
        return functools.wraps(solution)(lambda *args, **kwargs: change(solution(*args, **kwargs), args))
    public = [name for name in vars(solution) if not name.startswith("_") or name == "__call__"]
    method = "forward" if issubclass(solution, nn.Module) else public[0]
    original = getattr(solution, method)

    @functools.wraps(original)
    def replaced(self, *args, **kwargs):
        return change(original(self, *args, **kwargs), args)

    return type(solution.__name__, (solution,), {method: replaced})


class Change:
    """A fault in what is returned, applied to every tensor (or number) inside; remembers whether there was any."""

    def __init__(self, tensor=None, number=None):
        self.tensor, self.number, self.applied = tensor, number, False

    def __call__(self, result, _args=()):
        if isinstance(result, dict):
            return {key: self(value) for key, value in result.items()}
        if isinstance(result, (list, tuple)) and not isinstance(result, torch.Size):
            return type(result)([self(value) for value in result])
        change = self.tensor if isinstance(result, Tensor) else self.number
        if change is None or isinstance(result, (str, bool)) or result is None:
            return result
        self.applied = True
        return change(result)


FAULTS = {
    "NaN": lambda: Change(
        lambda t: torch.full(t.shape, torch.nan, dtype=t.dtype) if t.is_floating_point() else t * torch.nan,
        lambda number: float("nan"),
    ),
    "NumPy": lambda: Change(lambda t: t.detach().numpy()),
    "list": lambda: Change(lambda t: t.detach().tolist(), lambda number: [number]),
    "string": lambda: Change(str, str),
    "dtype": lambda: Change(lambda t: t.double() if t.dtype != torch.float64 else t.float()),
    "shape": lambda: Change(lambda t: t[None], lambda number: (number, number)),
    "device": lambda: Change(lambda t: t.to("meta")),
}


def assert_human(verdict) -> None:
    """A message for a person: something said, short, and not one line of the engine's own traceback."""
    assert not verdict and verdict.text.count("\n") < 20 and len(verdict.text) < 2500
    assert verdict.message or verdict.details
    assert "Traceback" not in verdict.text and "engine.py" not in verdict.text and "expect.py" not in verdict.text


@every
def test_is_complete(exercise: Exercise):
    assert re.fullmatch(r"([1-9]|1[01])\.[1-9]\d?", exercise.id)
    assert exercise.title and exercise.contract and exercise.minutes > 0 and 1 <= exercise.difficulty <= 5
    assert all(hint.strip() for hint in exercise.hints)
    if exercise.open:
        assert exercise.self_check and exercise.check is None and 1 <= len(exercise.hints) <= 3
    else:
        assert len(exercise.hints) == 3 and len(exercise.wrong) >= 5 and exercise.solution and exercise.check
        assert exercise.covers and all(phrase for _, phrase in exercise.wrong)


def test_ids_are_numbered_and_each_lesson_ends_open():
    for lesson in exercises.written():
        those = exercises.load(lesson)
        assert [exercise.id for exercise in those] == [f"{lesson}.{i}" for i in range(1, len(those) + 1)]
        assert [exercise.open for exercise in those] == [False] * (len(those) - 1) + [True] and len(those) >= 6
        names = [exercise.name for exercise in those if exercise.solution]
        assert len(set(names)) == len(names), "two solutions with one name"


@checked
def test_solution_is_documented_and_no_hint_holds_it(exercise: Exercise):
    assert inspect.getdoc(exercise.solution)
    tree = ast.parse(source_of(exercise.solution)).body[0]
    code = [node for node in tree.body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))]
    bare = "".join("\n".join(ast.unparse(node) for node in code).split())
    assert all(bare not in "".join(hint.split()) for hint in exercise.hints)


@checked
def test_stub_is_not_attempted(exercise: Exercise):
    stub = defined(stub_source(exercise.solution), exercise)
    verdict = judge(exercise, stub)
    assert verdict.status == "not attempted" and "hint(" in verdict.text


class Counted(TorchDispatchMode):
    """Counts the operations of torch and the numbers that they give: what a check costs, on any machine."""

    operations = numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.operations += 1
        self.numbers += sum(part.numel() for part in tree_leaves(result) if isinstance(part, Tensor))
        return result


@checked
def test_solution_passes_twice_and_cheaply(exercise: Exercise):
    """The limits are about a second on a slow machine; a mode counts in its own thread, so there without a limit."""
    state = torch.get_rng_state()
    first = judge(exercise, exercise.solution)
    with Counted() as cost:
        second = judge(exercise, exercise.solution, seconds=float("inf"))
    assert (first.status, second.status) == ("passed", "passed"), first.text
    assert cost.operations < 100_000 and cost.numbers < 1_000_000_000
    assert torch.equal(torch.get_rng_state(), state), "the learner's random generator was moved"


@checked
def test_solution_takes_the_place_of_its_stub(exercise: Exercise):
    stub = stub_source(exercise.solution)
    assert ast.dump(ast.parse(solved_source(stub, [exercise]))) == ast.dump(ast.parse(source_of(exercise.solution)))


@pytest.mark.parametrize(("exercise", "answer", "phrase"), MUTANTS)
def test_wrong_answer_is_wrong(exercise: Exercise, answer, phrase: str):
    verdict = judge(exercise, answer)
    assert verdict.status == "wrong", f"{verdict.status}: {verdict.text}"
    assert phrase.lower() in verdict.text.lower(), verdict.text
    assert_human(verdict)


@checked
@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_result_gets_a_message(exercise: Exercise, fault: str):
    change = FAULTS[fault]()
    verdict = judge(exercise, spoiled(exercise.solution, change))
    if not change.applied:
        pytest.skip("it returns nothing of this kind")
    assert verdict.status in ("wrong", "raised"), verdict.text
    assert_human(verdict)


def unreliable(exercise: Exercise, body: str):
    """A function or class of the right signature whose every call runs this body."""
    source = stub_source(exercise.solution).replace("raise NotImplementedError", body)
    return defined(source, exercise)


@checked
def test_none_gets_a_message(exercise: Exercise):
    verdict = judge(exercise, spoiled(exercise.solution, lambda result, args: None))
    assert verdict.status in ("wrong", "raised")
    assert_human(verdict)


@checked
def test_raising_code_is_shown_with_its_line(exercise: Exercise):
    verdict = judge(exercise, unreliable(exercise, "raise RuntimeError('broken on purpose')"))
    assert verdict.status == "raised" and "RuntimeError: broken on purpose" in verdict.text
    assert "of your cell" in verdict.text and "raise RuntimeError('broken on purpose')" in verdict.text
    assert_human(verdict)


@checked
def test_endless_loop_is_stopped(exercise: Exercise):
    verdict = judge(exercise, unreliable(exercise, "while True: pass"), seconds=0.1)
    assert verdict.status == "wrong" and "did not return within 0.1 s" in verdict.text
    assert_human(verdict)


@checked
def test_change_of_an_argument_is_noticed(exercise: Exercise):
    changed = []

    def in_place(result, args):
        for argument in args:
            if isinstance(argument, Tensor) and argument.is_floating_point():
                argument.data.add_(1)
                changed.append(argument)
        return result

    verdict = judge(exercise, spoiled(exercise.solution, in_place))
    if not changed:
        pytest.skip("it is given no floating tensor")
    assert verdict.status == "wrong"
    assert_human(verdict)


@checked
def test_wrong_number_of_arguments_is_explained(exercise: Exercise):
    if not inspect.signature(exercise.solution).parameters:
        pytest.skip("it takes no argument")
    parameters = " = 0, ".join("abcdefghijklm"[: len(inspect.signature(exercise.solution).parameters) + 1])
    function = f"def {exercise.name}(self, {parameters.replace(' = 0', '')}): return 0"
    if isinstance(exercise.solution, type):
        function = f"class {exercise.name}(nn.Module):\n" + textwrap.indent(
            function.replace(exercise.name, "__init__").replace("return 0", "super().__init__()"), "    "
        )
    verdict = judge(exercise, defined(function, exercise))
    assert verdict.status == "wrong" and "yours is" in verdict.text
    assert_human(verdict)


def signatures(node: ast.FunctionDef | ast.ClassDef) -> dict:
    """Arguments, return type and docstring of a function; of a class the docstring and those of its methods."""
    if isinstance(node, ast.FunctionDef):
        returns = ast.unparse(node.returns) if node.returns else ""
        return {"arguments": ast.unparse(node.args), "returns": returns, "docstring": ast.get_docstring(node)}
    methods = {part.name: signatures(part) for part in node.body if isinstance(part, ast.FunctionDef)}
    return {"docstring": ast.get_docstring(node), "bases": [ast.unparse(base) for base in node.bases], **methods}


@checked
def test_stub_in_the_notebook_agrees_with_the_solution(exercise: Exercise):
    notebooks = list(NOTEBOOKS.glob(f"{exercise.lesson:02d}_*.ipynb"))
    if not notebooks:
        pytest.skip("the notebook is not written yet")
    cells = [
        "".join(cell["source"])
        for cell in json.loads(notebooks[0].read_text(encoding="utf-8"))["cells"]
        if cell["cell_type"] == "code" and "exercise" in cell["metadata"].get("tags", ())
    ]
    stubs = [
        (node, cell)
        for cell in cells
        for node in ast.parse(cell).body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == exercise.name
    ]
    assert len(stubs) == 1, f"{len(stubs)} cells tagged `exercise` define {exercise.name}"
    node, cell = stubs[0]
    mine, theirs = signatures(node), signatures(ast.parse(source_of(exercise.solution)).body[0])
    assert mine == {key: theirs.get(key) for key in mine}, "stub and solution differ"
    assert judge(exercise, defined(ast.get_source_segment(cell, node), exercise)).status == "not attempted"
