"""Print the names of some of mutmut's mutants, drawn by a seed, for `mutmut run` to try these alone.

    python scripts/sample_mutants.py 150 --seed 0

`mutmut run` must have made the mutants before, in `mutants/`.
"""

import argparse
import json
import random
from collections.abc import Iterable
from pathlib import Path


def sample(names: Iterable[str], number: int, seed: int) -> list[str]:
    """Draw names, which do not depend on the order they come in; all of them where there are no more."""
    known = sorted(names)
    return sorted(random.Random(seed).sample(known, min(number, len(known))))


def mutant_names(folder: Path) -> list[str]:
    """Read the names of all mutants that mutmut has made below a folder."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in folder.rglob("*.meta")]
    return [name for document in found for name in document["exit_code_by_key"]]


def main() -> None:
    """Print the names, one a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("number", type=int)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("\n".join(sample(mutant_names(Path("mutants")), options.number, options.seed)))


if __name__ == "__main__":
    main()
