"""Running a learner's code for a limited time, in a kernel or a terminal, on every system."""

import contextvars
import ctypes
import math
import threading
import time
from collections.abc import Callable

import torch

from .. import compat


class TimedOut(BaseException):
    """Raised inside the learner's thread when its time is up; no `except Exception` of theirs catches it."""


def run_limited(task: Callable[[], None], seconds: float) -> BaseException | None:
    """Run the task in a thread for at most `seconds`; return the error it raised, TimedOut, or None."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(0)
    try:
        return _guarded(task) if math.isinf(seconds) else _in_thread(task, seconds)
    finally:
        torch.set_rng_state(state)


def _guarded(task: Callable[[], None]) -> BaseException | None:
    try:
        task()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a learner's exit() must not end the kernel
        return error
    return None


def _in_thread(task: Callable[[], None], seconds: float) -> BaseException | None:
    outcome, done = [], threading.Event()

    def work() -> None:
        try:
            with compat.helped():
                outcome.append(_guarded(task))
        except BaseException as error:
            outcome.append(error)
        finally:
            done.set()

    # The copied context lets what the learner prints appear below their own cell.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True)
    end = time.monotonic() + seconds
    try:
        thread.start()  # inside: the reader may press Stop while it starts
        # Short waits: on Windows a long one cannot be interrupted from the keyboard.
        while not done.wait(0.05) and time.monotonic() < end:
            pass
    except BaseException:
        _stop(thread, done)
        raise
    if done.is_set() and outcome:
        return outcome[0]
    return TimedOut() if _stop(thread, done) else TimedOut("still running")


def _stop(thread: threading.Thread, done: threading.Event) -> bool:
    """Ask the thread to stop, repeatedly: a bare `except:` in a loop swallows the first request."""
    for _ in range(20):
        if done.is_set():
            return True
        if thread.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(TimedOut))
        done.wait(0.05)
    return done.is_set()
