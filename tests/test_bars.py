"""Progress bars: text in a terminal, ordinary outputs in a notebook, nothing left of either."""

import pytest

from lessons import bars
from tests.kernels import WIDGET, errors, kernel, outputs, printed

# The clock stands still unless a test moves it.
SETUP = """
import contextvars, threading, tqdm.std
from lessons import bars

clock = [100.0]
tqdm.std.time = lambda: clock[0]

def work(bar, steps, seconds):
    for step in range(steps):
        clock[0] += seconds
        bar.set_postfix(loss=f"{step}", refresh=False)
        bar.update()
"""


@pytest.fixture(scope="module")
def live():
    with kernel() as one:
        assert not errors(one.run(SETUP))
        yield one


def frames(messages: list[tuple], kind: str = "text/html") -> list[str]:
    """Each state of the output in which bars are drawn."""
    return [content["data"][kind] for name, content in messages if name.endswith("display_data")]


def test_a_bar_shows_step_loss_and_time_left_and_is_taken_away(live):
    shown = live.run("with bars.bar(total=80, desc='a < b', unit=' steps') as bar:\n    work(bar, 40, 1.0)")
    first, *middle, last = frames(shown)
    assert first == '<div>a &lt; b <progress value="0" max="80"></progress> 0 of 80 steps</div>'
    assert (
        middle[-1]
        == '<div>a &lt; b <progress value="40" max="80"></progress> 40 of 80 steps, loss 39, 00:40 left</div>'
    )
    assert "40/80" in frames(shown, "text/plain")[-2] and last == ""
    assert outputs(shown) == [{"text/plain": "", "text/html": ""}] and printed(shown) == ""


@pytest.mark.parametrize(("seconds", "most"), [(0.01, 4), (0.1, 34), (1.0, 100)])
def test_it_is_drawn_at_most_four_times_a_second(live, seconds, most):
    shown = live.run(f"with bars.bar(total=100) as bar:\n    work(bar, 100, {seconds})")
    assert most - 1 <= len(frames(shown)) - 2 <= most


def test_bars_of_several_threads_stand_in_one_output(live):
    shown = live.run("""
def job(name):
    with bars.bar(total=4, desc=name) as bar:
        meeting.wait(60)
        work(bar, 4, 1.0)
        meeting.wait(60)

meeting = threading.Barrier(3)
threads = [threading.Thread(target=contextvars.copy_context().run, args=(job, name)) for name in "abc"]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
""")
    assert max(frame.count("<progress") for frame in frames(shown)) == 3
    assert [name for name, _ in shown].count("display_data") == 1
    assert outputs(shown) == [{"text/plain": "", "text/html": ""}]


def test_bars_one_after_another_share_the_output_of_their_cell_only(live):
    cell = "for name in 'ab':\n    with bars.bar(total=4, desc=name) as bar:\n        work(bar, 4, 1.0)"
    for _ in range(2):
        shown = live.run(cell)
        assert [name for name, _ in shown].count("display_data") == 1 and len(outputs(shown)) == 1


def test_a_bar_goes_when_its_loop_fails_and_an_unknown_length_is_counted(live):
    failed = live.run(
        "for n in bars.bar(iter(range(9)), desc='rows', unit=' rows'):\n    clock[0] += 1\n    if n == 3: 1 / 0"
    )
    assert (
        "ZeroDivisionError" in errors(failed)[0][-1]
        and frames(failed)[0] == "<div>rows <progress ></progress> 0 rows</div>"
    )
    live.run("import gc; gc.collect()")
    shown = live.run("with bars.bar(total=9):\n    1 / 0")
    assert errors(shown) and outputs(shown) == [{"text/plain": "", "text/html": ""}]


def test_a_bar_that_waits_before_it_shows_may_never_show(live):
    assert frames(live.run("with bars.bar(total=4, delay=10) as bar:\n    work(bar, 4, 1.0)")) == []
    shown = live.run("with bars.bar(total=20, delay=10) as bar:\n    work(bar, 20, 1.0)")
    assert '"10"' in frames(shown)[0] and frames(shown)[-1] == ""


def test_headless_kernels_show_none(live):
    shown = live.run(
        "import os; os.environ['LESSONS_HEADLESS'] = '1'\nwith bars.bar(total=4) as bar: work(bar, 4, 1.0)"
    )
    live.run("del os.environ['LESSONS_HEADLESS']")
    assert not outputs(shown) and printed(shown) == ""


def test_no_bar_is_a_widget(live):
    shown = live.run(
        "with bars.bar(total=4) as bar: work(bar, 4, 1.0)\nprint('ipywidgets' in __import__('sys').modules)"
    )
    assert printed(shown) == "False\n" and not any(WIDGET in data for data in outputs(shown))


def test_in_a_terminal_it_is_text_and_headless_nothing(monkeypatch, capsys):
    assert list(bars.bar([1, 2], desc="rows")) == [1, 2]
    assert "rows" in capsys.readouterr().err
    monkeypatch.setenv("LESSONS_HEADLESS", "1")
    assert list(bars.bar([1, 2], desc="rows")) == [1, 2]
    assert capsys.readouterr() == ("", "")
