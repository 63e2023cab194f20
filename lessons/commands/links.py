"""Where the course lives: badges and setup cells, written from one address and rewritten for a fork."""

import re
import tomllib
from pathlib import Path

from .. import course, store
from ..errors import LessonError, SettingError
from . import checkout
from .mine import ELSEWHERE

COLAB = "https://colab.research.google.com"
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
REF = re.compile(r"\w[\w./-]*")
# Owner and name, then ref, in the two kinds of link that name both.
IN_BADGE = re.compile(rf"({re.escape(COLAB)}/github/)([\w.-]+/[\w.-]+)/blob/([\w./-]+?)/notebooks/")
IN_SETUP = re.compile(r"(git\+https://github\.com/)([\w.-]+/[\w.-]+?)@([\w./-]+)")


def setup_cell(address: str, ref: str = "main") -> str:
    """The first code cell of every notebook: installs the package where it is not there, and touches nothing else.
    `address` is that of the repository, `ref` a branch or tag."""
    return (
        "import importlib.util, subprocess, sys\n"
        'if importlib.util.find_spec("lessons") is None:\n'
        f'    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "git+{address}@{ref}"], check=True)'
    )


def badge(address: str, ref: str, lesson: course.Lesson) -> str:
    """The Markdown of a badge that opens the notebook of `lesson` on Colab."""
    image = f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]"
    return f"{image}({COLAB}/github/{owner_and_name(address)}/blob/{ref}/notebooks/{lesson.stem}.ipynb)"


def address(root: Path) -> str:
    """Address of the repository in the checkout's pyproject.toml: the one place where it stands."""
    with open(root / "pyproject.toml", "rb") as file:
        return tomllib.load(file)["project"]["urls"]["Repository"]


def owner_and_name(address: str) -> str:
    """`owner/name` of an address on GitHub."""
    return address.removeprefix("https://github.com/").rstrip("/")


def current_ref(root: Path) -> str:
    """The branch or tag that the setup cells install; `main` while there are no notebooks."""
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        if found := IN_SETUP.search(_text(path)):
            return found[3]
    return "main"


def _text(path: Path) -> str:
    """What a file says; LessonError where that is no text in UTF-8, as everything here is."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise LessonError(f"{path} cannot be read ({error.strerror}). Make it readable, or move it away.") from error
    except UnicodeDecodeError as error:
        raise LessonError(f"{path} is no text in UTF-8. Save it as such, or move it to another folder.") from error


def rewritten(text: str, old: str, new: str, ref: str) -> str:
    """`text` with every badge and setup cell pointing to `new` (owner/name) at `ref`, and every other link to the
    repository `old` pointing to `new`."""
    text = IN_BADGE.sub(rf"\g<1>{new}/blob/{ref}/notebooks/", text)
    text = IN_SETUP.sub(rf"\g<1>{new}@{ref}", text)
    elsewhere = rf"(github\.com/|githubusercontent\.com/){re.escape(old)}(?![\w-]|\.(?!git\b)\w)"
    return re.sub(elsewhere, rf"\g<1>{new}", text)


def rewrite(repository: str, ref: str = "main") -> list[Path]:
    """Point badges, setup cells and links of the whole checkout to `repository` ("owner/name") at `ref`; returns the
    files that changed. Raises SettingError for anything that is no repository or no ref, LessonError (before anything
    is written) where a file cannot be read."""
    if not REPOSITORY.fullmatch(repository):
        raise SettingError(f"--repo is {repository!r}. Expected owner/name, such as ada/vision-to-language.")
    if not REF.fullmatch(ref):
        raise SettingError(f"--ref is {ref!r}. Expected a branch or tag, such as main or v1.0.")
    root = checkout()
    old = owner_and_name(address(root))
    files = [*sorted(root.glob("notebooks/*.ipynb")), *sorted(root.glob("notebooks/source/*.py"))]
    files += [root / name for name in ("README.md", "CONTRIBUTING.md", "pyproject.toml") if (root / name).is_file()]
    before = {path: _text(path) for path in files}
    after = {path: rewritten(text, old, repository, ref) for path, text in before.items()}
    changed = [path for path in files if after[path] != before[path]]
    for path in changed:
        with store.atomic(path, ELSEWHERE) as partial:
            partial.write_text(after[path], encoding="utf-8")
        print(f"rewrote {path.relative_to(root)}")
    print(f"{len(changed)} of {len(files)} files changed." + (" Run `make setup` next." if changed else ""))
    return changed
