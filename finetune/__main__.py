"""The program: `python -m finetune`, and the command `finetune`.

Ctrl-C ends it without a traceback from the first import on. Until `main` is called, for a few hundredths of
a second, Python itself starts: a Ctrl-C then ends the process with what Python says of it, a traceback or
nothing. No code of a package can run earlier; nothing has been read or written by then.
"""

import gc
import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130
"""exit code after Ctrl-C, when nothing new was saved"""


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
    main()
