"""The program: `python -m finetune`, and the command `finetune`.

Ctrl-C ends it without a traceback from the first import on. Until `main` is called, for a few hundredths of
a second, Python itself starts: a Ctrl-C then ends the process with what Python says of it, a traceback or
nothing. No code of a package can run earlier; nothing has been read or written by then.
"""

import atexit
import gc
import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130
"""exit code after Ctrl-C, when nothing new was saved"""


def program() -> None:
    """Run the command line as all that its process is for, and let the process end without delay.

    As Python ends it takes apart what torch and its libraries have set up. For that it reads much of their
    code from the disk: 127 MB of memory and up to half a second, for nothing that anybody waits for.
    """
    ended_with: list[int] = []
    # What is registered first runs last. Whoever was earlier, as a tool that measures coverage, would not run
    # after it at all: for them, and where nobody can say who they are, the process ends as ever.
    if getattr(atexit, "_ncallbacks", lambda: 1)() == 0:
        atexit.register(end_at_once, ended_with)
    try:
        main()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            ended_with.append(end.code or 0)
        raise
    ended_with.append(0)


def end_at_once(ended_with: list[int]) -> None:
    """End the process with the exit code that the list holds; let it end as ever where the list is empty.

    Then an exception that nobody caught has told what happened. Nor is a process ended here that has used a
    GPU, whose profilers write what they saw as it ends, or one whose output cannot be written any more.
    """
    torch = sys.modules.get("torch")
    if not ended_with or (torch is not None and torch.cuda.is_initialized()):
        return
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):  # Python tries once more, and ends with the code that it has for this
        return
    os._exit(ended_with[0])


def main() -> None:
    """Run the command line."""
    gc.freeze()  # and with it whatever is imported from now on, see `finetune.imports`
    # While modules load there is nothing to clean up, and an exception out of an import would show itself.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where nohup has it ignored
        signal.signal(signal.SIGINT, leave)
    from finetune.cli import main as run

    try:
        run()
    except SystemExit as end:
        # A late Ctrl-C must not change the outcome while Python shuts down.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if end.code == INTERRUPTED:
            # Python would kill itself by SIGINT, after a KeyboardInterrupt in an `exec` (of a dataclass).
            sys.stdout.flush()
            os._exit(INTERRUPTED)
        raise
    finally:
        gc.freeze()  # Python looks for garbage once more as it ends, which with torch takes half a second


def leave(number: int, frame: FrameType | None) -> None:
    """End the process at once: a handler for a signal that comes before there is anything to clean up."""
    try:
        os.write(2, b"interrupted\n")
    finally:
        os._exit(INTERRUPTED)


if __name__ == "__main__":
    program()
