"""Reading source code: which stubs are untouched, what a solution looks like, and the solved form of a cell."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any

from ..errors import SettingError


def stub_in(candidate: Any) -> str:
    """The name of the untouched stub in the candidate, or an empty string; found by reading, not by running."""
    if not isinstance(candidate, type):
        return f"`{candidate.__name__}`" if isinstance(candidate, FunctionType) and _is_stub(candidate) else ""
    own = [member for member in vars(candidate).values() if isinstance(member, FunctionType)]
    if not own and "__module__" in vars(candidate) and candidate.__module__ == "__main__":
        return f"`{candidate.__name__}`"
    return next((f"`{candidate.__name__}.{method.__name__}`" for method in own if _is_stub(method)), "")


def _is_stub(function: FunctionType) -> bool:
    try:
        node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (OSError, TypeError, SyntaxError, IndexError):
        return False
    if not isinstance(node, ast.FunctionDef) or node.name != function.__name__:
        return False
    return all(_is_placeholder(statement) for statement in node.body)


def _is_placeholder(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Raise) and statement.exc is not None:
        return "NotImplementedError" in ast.unparse(statement.exc)
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)  # a docstring or `...`
    )


def source_of(solution: Callable | type) -> str:
    """The source of a solution, decorators included, ending with one newline."""
    return textwrap.dedent(inspect.getsource(solution)).rstrip() + "\n"


def solved_source(cell_source: str, exercises: Iterable) -> str:
    """The cell with each stub (a top-level def or class named like a solution) replaced by the solution's source.

    Everything else stays as it is, the stub's decorators included; SettingError where the cell is not Python.
    """
    solutions = {exercise.name: exercise.solution for exercise in exercises if exercise.solution}
    lines = cell_source.splitlines()
    for node in reversed(_parsed(cell_source).body):
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name not in solutions:
            continue
        source = source_of(solutions[node.name])
        skip = ast.parse(source).body[0].lineno - 1 if node.decorator_list else 0
        lines[node.lineno - 1 : node.end_lineno] = source.splitlines()[skip:]
    return "\n".join(lines) + ("\n" if cell_source.endswith("\n") else "")


def _parsed(cell_source: str) -> ast.Module:
    """The cell as a tree; lines of IPython (%magic, !shell) count as empty statements."""
    lines = []
    for line in cell_source.splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        lines.append(f"{indent}pass" if line.lstrip().startswith(("%", "!", "?")) else line)
    try:
        return ast.parse("\n".join(lines))
    except SyntaxError as error:
        where = f"line {error.lineno}: {error.msg}"
        raise SettingError(f"The cell is not Python ({where}), so its stub cannot be replaced.") from error
