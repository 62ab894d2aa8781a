"""Print the oldest releases that pyproject.toml admits, one pin a line, for pip to install.

`make test-oldest` runs the tests in an environment of these pins: every lower bound is one that works.
"""

import argparse
import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def oldest(requirements: Iterable[str]) -> Iterator[str]:
    """Turn every lower bound into a pin: `pydantic>=2.10,<3` becomes `pydantic==2.10`.

    Raises:
        ValueError: a requirement has no lower bound, so that nobody can say which release is the oldest.
    """
    for requirement in requirements:
        found = re.match(r"([\w.-]+)\s*(?:\[[\w,-]+\])?[^;]*?>=\s*([\w.]+)", requirement)
        if found is None:
            raise ValueError(f"{requirement!r} has no lower bound")
        yield f"{found[1]}=={found[2]}"


def main() -> None:
    """Print the pins of the dependencies and of the named extras."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("extras", nargs="*", help="extras whose requirements are pinned too")
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    requirements = list(project["dependencies"])
    for extra in parser.parse_args().extras:
        requirements += project["optional-dependencies"][extra]
    print("\n".join(oldest(requirements)))


if __name__ == "__main__":
    main()
