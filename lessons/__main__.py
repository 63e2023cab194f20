"""`python -m lessons`: run lessons, check this machine, and keep the course in order."""

import argparse
import json
import sys
from pathlib import Path

from .errors import LessonError, SettingError


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = argparse.ArgumentParser(prog="python -m lessons", description=__doc__)
    commands = root.add_subparsers(dest="command", required=True, metavar="command")

    run = commands.add_parser("run", help="run a lesson without a browser and print its claims table")
    run.add_argument("lesson", help="a number such as 01, or all")
    run.add_argument("--scale", choices=("smoke", "cpu", "gpu"), help="default: LESSONS_SCALE, else by the device")
    run.add_argument("--data", choices=("auto", "real", "scenes"), help="default: LESSONS_DATA, else auto")
    run.add_argument("--out", type=Path, default=Path("build"), help="folder for notebook and record (default: build)")
    run.add_argument("--update", action="store_true", help="put the outputs into notebooks/ (with --data scenes)")
    run.add_argument("--hold", action="store_true", help="fail when a claim that holds in the reference does not hold")

    solve = commands.add_parser("solve", help="write the solved exercise sections that CI runs")
    solve.add_argument("lesson", nargs="?", default="all", help="a number such as 01, or all (default)")
    solve.add_argument("--out", type=Path, default=Path("build/solved"), help="folder (default: build/solved)")

    cut = commands.add_parser("cut", help="write the 45-minute cuts for a workshop as notebooks of their own")
    cut.add_argument("lesson", nargs="?", default="all", help="a number such as 01, or all (default)")
    cut.add_argument("--out", type=Path, default=Path("build/cut"), help="folder (default: build/cut)")

    lab = commands.add_parser("lab", help="open a copy of your own of a lesson in JupyterLab")
    lab.add_argument("lesson", nargs="?", default="01", help="a number such as 01 (default)")
    lab.add_argument("--new", action="store_true", help="make a new copy; the older ones stay")
    lab.epilog = "What stands after -- goes to JupyterLab: python -m lessons lab 03 -- --no-browser"

    mine = commands.add_parser("mine", help="list your own copies, or move your work out of the published notebooks")
    mine.add_argument("lesson", nargs="?", default="all", help="a number such as 01, or all (default)")
    mine.add_argument("--rescue", action="store_true", help="keep your work in notebooks/mine, restore the published")

    progress = commands.add_parser("progress", help="show how far you are, or take it to another machine")
    progress.add_argument("--export", metavar="FILE", help="write the progress to a new file")
    progress.add_argument("--import", metavar="FILE", dest="merge", help="merge an exported file")

    commands.add_parser("sync", help="carry notebooks/source/*.py over to the notebooks")

    listing = commands.add_parser("exercises", help="list the exercises")
    listing.add_argument("--json", action="store_true", help="as JSON")
    listing.add_argument("--lesson", type=int, help="of one lesson only")

    links = commands.add_parser("links", help="point badges, setup cells and links to another repository")
    links.add_argument("--repo", required=True, metavar="OWNER/NAME")
    links.add_argument("--ref", default="main", help="branch or tag (default: main)")

    commands.add_parser("doctor", help="check whether the lessons can run here")

    pack = commands.add_parser("pack", help="make the bundle for a workshop without network")
    pack.add_argument("--out", type=Path, required=True, help="folder to write to")
    pack.add_argument("--data", type=Path, metavar="FOLDER", help="folder with data sets to take along")
    pack.add_argument("--no-wheels", action="store_true", help="leave the wheels out")

    results = commands.add_parser("results", help="list the reference records, or accept new ones")
    results.add_argument("--accept", type=Path, nargs="+", metavar="FILE", help="records to copy into the package")
    results.add_argument("--readme", action="store_true", help="write README's table of lessons anew")

    picture = commands.add_parser("picture", help="draw README's picture of the path anew")
    picture.add_argument("--out", type=Path, help="file (default: docs/path.png of the checkout)")
    return root


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 when it did what was asked, 1 when the doctor found faults, 2 for an error."""
    arguments = sys.argv[1:] if arguments is None else arguments
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser().parse_args(arguments[:end])
    options.further = arguments[end + 1 :]
    try:
        if options.further and options.command != "lab":
            raise SettingError(f"Only `lab` takes arguments after --, not {options.command}.")
        return int(COMMANDS[options.command](options) or 0)
    except LessonError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _run(o: argparse.Namespace) -> None:
    from .commands.run import run

    run(o.lesson, scale=o.scale, data=o.data, out=o.out, update=o.update, hold=o.hold)


def _solve(o: argparse.Namespace) -> None:
    from .commands.notebooks import solve

    for path in solve(o.lesson, o.out):
        print(path)


def _cut(o: argparse.Namespace) -> None:
    from .commands.notebooks import cut

    for path in cut(o.lesson, o.out):
        print(path)


def _lab(o: argparse.Namespace) -> int:
    from .commands.lab import lab

    return lab(o.lesson, new=o.new, arguments=o.further)


def _mine(o: argparse.Namespace) -> None:
    from .commands import mine, notebooks

    if not o.rescue:
        mine.show(o.lesson)
    elif not notebooks.rescue(o.lesson):
        print("The published notebooks hold nothing of yours.")


def _progress(o: argparse.Namespace) -> None:
    from .exercises import progress

    progress(export=o.export, merge=o.merge)


def _sync(o: argparse.Namespace) -> None:
    from .commands.notebooks import sync

    if not sync():
        print("All notebooks are in step with their sources.")


def _exercises(o: argparse.Namespace) -> None:
    from .course import lesson
    from .exercises import listing

    number = None if o.lesson is None else lesson(o.lesson).number
    rows = [row for row in listing() if number in (None, row["lesson"])]
    if o.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for row in rows:
        kind = "open" if row["open"] else f"{row['hints']} hints, {row['wrong_answers']} wrong answers told apart"
        print(f"{row['id']:<6}{row['title']:<48}{row['minutes']:>3} min  difficulty {row['difficulty']}  {kind}")
    print(f"{len(rows)} exercises, {sum(row['minutes'] for row in rows)} minutes")


def _links(o: argparse.Namespace) -> None:
    from .commands.links import rewrite

    rewrite(o.repo, o.ref)


def _doctor(o: argparse.Namespace) -> int:
    from .commands.doctor import doctor

    return 0 if doctor() else 1


def _pack(o: argparse.Namespace) -> None:
    from .commands.pack import pack

    pack(o.out, o.data, wheels=not o.no_wheels)


def _results(o: argparse.Namespace) -> None:
    from .commands import results

    if o.accept:
        results.accept(o.accept)
    if o.readme:
        results.readme()
    if not o.accept and not o.readme:
        results.show()


def _picture(o: argparse.Namespace) -> None:
    from .commands import checkout
    from .commands.picture import picture

    path = o.out or checkout() / "docs" / "path.png"
    picture(path)
    print(path)


COMMANDS = {
    "run": _run,
    "solve": _solve,
    "cut": _cut,
    "lab": _lab,
    "mine": _mine,
    "progress": _progress,
    "sync": _sync,
    "exercises": _exercises,
    "links": _links,
    "doctor": _doctor,
    "pack": _pack,
    "results": _results,
    "picture": _picture,
}

if __name__ == "__main__":
    sys.exit(main())
