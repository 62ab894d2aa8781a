"""Run the fuzzers of the tests with fresh seeds until the minutes are over: `make fuzz MINUTES=60`.

    python scripts/fuzz.py 60

Each round draws a seed, prints it, and runs every fuzzer with it in a random order; when the time is over,
the one that runs is ended. What fails is printed with the line that repeats it. Nothing is kept but seeds.
"""

import os
import random
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from threading import Timer

ROOT = Path(__file__).parents[1]

_OUTCOME = re.compile(r"(tests/\S+::\S+.*) (PASSED|FAILED|ERROR)\b")


@dataclass
class Tally:
    """What came of the fuzzers so far."""

    passed: int = 0
    failed: list[str] = field(default_factory=list)
    """The command that repeats each failure."""

    def read(self, line: str, seed: int) -> None:
        """Count a fuzzer, if this line of `pytest -v` says that one has ended."""
        found = _OUTCOME.match(line)
        if found is None:
            return
        if found[2] == "PASSED":
            self.passed += 1
        else:
            self.failed.append(f"FUZZ_SEED={seed} python -m pytest -m slow '{found[1]}'")


def run_round(seed: int, seconds: float, tally: Tally) -> None:
    """Run every fuzzer once, for at most so many seconds; print all that pytest said where one fails."""
    command = [sys.executable, "-m", "pytest", "-m", "fuzz and slow", "-vv", "--tb=short"]
    command += ["-p", "no:cacheprovider", "--random-order", f"--random-order-seed={seed}"]
    environment = os.environ | {"FUZZ_SEED": str(seed), "COLUMNS": "200"}
    failures, lines = len(tally.failed), []
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as pytest:
        end = Timer(seconds, pytest.terminate)
        end.start()
        for line in pytest.stdout or ():
            lines.append(line)
            tally.read(line, seed)
        end.cancel()
    if len(tally.failed) > failures:
        print("".join(lines), flush=True)


def main() -> int:
    """Run rounds until the time is over, and return the exit code: 1 where a fuzzer has found something."""
    minutes = float(sys.argv[1])
    until, tally, rounds = time.monotonic() + 60 * minutes, Tally(), 0
    while (left := until - time.monotonic()) > 0:
        seed, rounds = random.SystemRandom().randrange(10**9), rounds + 1
        print(f"round {rounds}: FUZZ_SEED={seed}", flush=True)
        run_round(seed, left, tally)
        print(f"  {tally.passed} passed, {len(tally.failed)} failed so far", flush=True)
    print(
        f"{rounds} rounds in {minutes:g} minutes: {tally.passed} fuzzers passed, {len(tally.failed)} failed"
    )
    print("\n".join(tally.failed), end="\n" * bool(tally.failed))
    return 1 if tally.failed or not tally.passed else 0


if __name__ == "__main__":
    sys.exit(main())
