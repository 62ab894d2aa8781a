"""Compare recipes where a folder holds very few images, as `finetune init` meets it.

    python benchmarks/few_images.py FOLDER... [--each 5 10 20] [--seeds 3] [--size 128]
        [--recipe NAME KEY=VALUE... ]...

FOLDER holds train/ and val/ with one folder per class. So many images of each class are drawn from train/,
another draw for each seed; `init` writes a config for them, which splits a fifth off to validate on and to
choose the best epoch by; and what the training leaves is judged on all of val/. The recipes take turns on the
same draws: the config as it is written, the same with what --recipe changes, and a head alone that is trained
to the end on cached features. Printed is the accuracy: the mean over the seeds, the lowest and the highest.
"""

import argparse
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

from photographs import HEAD_ALONE, HEAD_EPOCHS, spread, value_of

import finetune
from finetune.errors import FinetuneError

RECIPES: dict[str, list[str]] = {
    "as init writes it": [],
    f"head alone, {HEAD_EPOCHS} epochs": [HEAD_ALONE],
}


def main() -> None:
    """Print a table for each folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--each", nargs="+", type=int, default=[5, 10, 20], help="images of each class")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--recipe", nargs="+", action="append", default=[], metavar="NAME KEY=VALUE")
    options = parser.parse_args()
    recipes = RECIPES | {name: changes for name, *changes in options.recipe}
    for folder in options.folders:
        columns = " | ".join(f"{each} a class" for each in options.each)
        print(f"\n| {folder.name}, {options.seeds} seeds, {options.size} px | {columns} |")
        print(f"|---|{'---|' * len(options.each)}", flush=True)
        scores: dict[str, list[str]] = {name: [] for name in recipes}
        for each in options.each:
            found: dict[str, list[float | None]] = {name: [] for name in recipes}
            for seed in range(options.seeds):
                for name, changes in recipes.items():
                    found[name].append(
                        accuracy(folder, each, seed, [f"data.image_size={options.size}", *changes])
                    )
            for name, values in found.items():
                scores[name].append(cell(values))
        for name, cells in scores.items():
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


def accuracy(folder: Path, each: int, seed: int, changes: Sequence[str]) -> float | None:
    """Train on a few images of each class, and return the accuracy on val/; None: it failed."""
    with tempfile.TemporaryDirectory() as name:
        data, held_out = draw(folder, each, seed, Path(name))
        overrides = {key: value_of(value) for key, _, value in (change.partition("=") for change in changes)}
        try:
            run = finetune.train(
                data, overrides={"seed": seed} | overrides, run_dir=f"{name}/run", quiet=True
            )
        except FinetuneError as error:
            print(f"failed: {error}".splitlines()[0])
            return None
        return run.model.evaluate(held_out).accuracy


def draw(folder: Path, each: int, seed: int, into: Path) -> tuple[Path, Path]:
    """Link `each` images of every class, drawn from train/, and all of val/; return both folders."""
    chance = random.Random(seed)
    for part, name in (("train", "few"), ("val", "val")):
        for of_class in sorted((folder / part).iterdir()):
            files = sorted(of_class.iterdir())
            target = into / name / of_class.name
            target.mkdir(parents=True)
            for file in files if part == "val" else chance.sample(files, each):
                (target / file.name).symlink_to(file.resolve())
    return into / "few", into / "val"


def cell(values: Sequence[float | None]) -> str:
    """Write the accuracies, and how many trainings failed."""
    scores = [100 * value for value in values if value is not None]
    if not scores:
        return "failed"
    failed = f", {len(values) - len(scores)} failed" if len(scores) < len(values) else ""
    return spread(scores) + failed


if __name__ == "__main__":
    main()
