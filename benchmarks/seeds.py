"""Tables of scores over a few seeds, for the programs that train anew with each of them."""

import argparse
import statistics
from collections.abc import Iterable, Sequence

FIRST = 42


def parser_with_seeds(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of arguments that has `--seeds`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    return parser


def summary(values: Sequence[float], digits: int = 1) -> str:
    """Write median, lowest and highest."""
    median, low, high = (f"{f(values):.{digits}f}" for f in (statistics.median, min, max))
    return f"{median} ({low} – {high})"


def print_head(seeds: int, columns: Sequence[str]) -> None:
    """Print the head of a table."""
    print(f"| {seeds} seeds | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}", flush=True)


def print_row(name: str, outcomes: Iterable[Sequence[float]]) -> None:
    """Print a row: of each score, in the order of the columns, the values of all seeds in short."""
    print(f"| {name} | {' | '.join(map(summary, zip(*outcomes, strict=True)))} |", flush=True)
