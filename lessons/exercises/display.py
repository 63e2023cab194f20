"""How verdicts, hints, solutions and progress look: rich in Jupyter, plain in a terminal, the same on every run."""

import html
import re
import sys
import textwrap
from collections.abc import Sequence

from .engine import NOT_ATTEMPTED, OPEN, PASSED, RAISED, WRONG, Verdict

# Mid-tones: readable as a border on white and on black; all text keeps the theme's own colour.
COLOURS = {PASSED: "#2a9d8f", WRONG: "#e07a2f", RAISED: "#b565a7", NOT_ATTEMPTED: "#8a8f98", OPEN: "#4a8fd0"}
MONO = "font-family:monospace;white-space:pre;overflow-x:auto;margin:.4em 0;opacity:.9"


def show(plain: str, *, rich: str = "", markdown: str = "") -> None:
    """Show HTML or Markdown where IPython runs, with the plain text beside it; print the plain text elsewhere."""
    if in_ipython():
        from IPython.display import display

        bundle = {"text/plain": plain, "text/html": rich, "text/markdown": markdown}
        display({kind: text for kind, text in bundle.items() if text}, raw=True)
    else:
        print(plain)


def in_ipython() -> bool:
    """Whether this process is a notebook kernel or an IPython terminal."""
    return "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None


def panel(colour: str, title: str, *parts: str) -> str:
    """A box with a coloured edge: an escaped title above parts that are HTML already."""
    style = f"border-left:4px solid {colour};background:{colour}1a;padding:.5em .8em;margin:.3em 0;line-height:1.45"
    body = "".join(f"<div>{part}</div>" for part in parts if part)
    return f'<div style="{style}"><strong>{html.escape(title)}</strong>{body}</div>'


def prose(text: str) -> str:
    """Text as HTML: escaped, line breaks kept, `backticks` as code."""
    code = re.sub(r"`([^`\n]+)`", r"<code>\1</code>", html.escape(text, quote=False))
    return f'<span style="white-space:pre-wrap">{code}</span>' if text else ""


def verdict(found: Verdict) -> None:
    """Show a verdict."""
    details = found.details and f'<div style="{MONO}">{html.escape(found.details, quote=False)}</div>'
    cause = found.cause and f"<em>Likely cause:</em> {prose(found.cause)}"
    parts = (prose(found.message), details, cause, prose(found.next), prose(found.note))
    show(found.text, rich=panel(COLOURS[found.status], f"{found.mark} {found.title}", *parts))


def hint(title: str, text: str, after: str) -> None:
    """Show one hint."""
    plain = "\n".join(part for part in (title, textwrap.indent(text, "    "), after) if part)
    show(plain, rich=panel(COLOURS[OPEN], title, prose(text), f"<small>{prose(after)}</small>"))


def solution(title: str, source: str) -> None:
    """Show source code: highlighted by the notebook's own theme, plain in a terminal."""
    show(f"{title}\n\n{source}", markdown=f"**{title}**\n\n```python\n{source}```")


def strip(steps: list[tuple[int, str, int, int | None]], notes: Sequence[str] = ()) -> None:
    """Show the path as steps (number, title, passed, total), total None where a lesson is not written yet, and the
    notes below it."""
    lines, boxes = [], []
    for number, title, passed, total in steps:
        done = total is not None and passed == total
        colour = COLOURS[NOT_ATTEMPTED if total is None else PASSED if done else OPEN if passed else NOT_ATTEMPTED]
        count = "not written yet" if total is None else f"{'✓ ' if done else ''}{passed} / {total}"
        bar = "" if total is None else "#" * round(10 * passed / max(total, 1))
        lines.append(f"{number:02d}  {title:<24}[{bar:<10}]  {count}")
        share = 100 * passed / total if total else 0
        fill = f"linear-gradient(90deg,{colour}55 {share:.0f}%,transparent {share:.0f}%)"
        style = f"flex:1 1 6.5em;border:1px solid {colour};border-radius:4px;padding:.3em .5em;background:{fill}"
        style += ";opacity:.55" if total is None else ""
        label = f"<small>{number:02d}</small> {html.escape(title)}<br><small>{count}</small>"
        boxes.append(f'<div style="{style}">{label}</div>')
    row = f'<div style="display:flex;flex-wrap:wrap;gap:4px;line-height:1.35">{"".join(boxes)}</div>'
    small = "<br>".join(html.escape(note) for note in notes)
    show("\n".join([*lines, *notes]), rich=row + (small and f"<small>{small}</small>"))
