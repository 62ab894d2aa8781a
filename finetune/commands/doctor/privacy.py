"""What a report that is pasted into a public page must not hold: names of people, machines and folders."""

import getpass
import re
import socket
from contextlib import suppress
from pathlib import Path


def without_names(text: str) -> str:
    """Return a text with `~` for the home folder, and `…` for the names of the user and of the machine."""
    with suppress(RuntimeError):  # nobody's home
        home = str(Path.home())
        if len(home) > 1:
            text = re.sub(rf"{re.escape(home)}(?![\w-])", "~", text)
    for name in _names():
        text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", "…", text)
    return text


def shown_place(path: Path) -> str:
    """Return where a folder is: below the home as it stands, elsewhere by its last part alone."""
    with suppress(RuntimeError, ValueError):
        return f"~/{path.relative_to(Path.home())}"
    return f"…/{path.name}"


def _names() -> set[str]:
    host = socket.gethostname()
    names = {host, host.partition(".")[0]}
    with suppress(OSError, KeyError):  # a user without a name, as in a container
        names.add(getpass.getuser())
    return {name for name in names if name}
