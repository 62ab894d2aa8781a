"""Processes that do a part of the work of a command, and end with it."""

import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any

from finetune.machine.signals import ASKING


def start_helper(
    target: Callable[..., None], *arguments: object
) -> tuple[BaseProcess, "Connection[Any, Any]"]:
    """Start a process that calls a function with its end of a pipe, and arguments; return it and our end.

    It is a fresh one: forked processes would inherit locks that threads of torch hold. Signals that ask to
    stop do not reach it, so whoever started it ends it.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
    with _signals_held_back(), _main_left_out():
        process.start()
    theirs.close()
    return process, ours


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Block stop signals in a process that is started here, for good: the main process stops it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # which would let the signals in again when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _main_left_out() -> Iterator[None]:
    """Keep a process that is started here from running the main program again, as it would to find functions.

    So a script that trains needs no `if __name__ == "__main__"`, and what it imports is not waited for.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
