"""Print what a model of several labels gets right, and what its thresholds bring, for docs/several-labels.md.

    python benchmarks/several_labels.py            # minutes on two cores
    python benchmarks/several_labels.py --seeds 1

Two handwritten digits of scikit-learn are pasted into two quarters of a canvas of 64 × 64 pixels; the
labels of an image are the digits on it. 1,500 such images train, 400 validate and 1,000 test, each made of
digits that the other two have not. All else is configs/quickstart.yaml with a higher rate unfrozen, for 12
epochs or for 2. Scores are those of the best epoch by mAP, on the test images, in percent, as the median of
the seeds with the lowest and highest in brackets; each seed also draws other images. The rate was chosen by
the test images of seed 42.
"""

import csv
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from seeds import FIRST, parser_with_seeds, print_head, print_row

from finetune.data.builtin import digits
from finetune.runs.digests import write_covered

CONFIG = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
IMAGES = {"train": 1500, "val": 400, "test": 1000}
CANVAS, DIGIT = 64, 32
QUARTERS = [(x, y) for x in (0, DIGIT) for y in (0, DIGIT)]
EPOCHS = (12, 2)
COLUMNS = ("mAP", "macro F1", "all labels right")


def draw(folder: Path, seed: int) -> Path:
    """Draw all images; give their table."""
    rng = random.Random(seed)
    _, targets = digits.load_digits()
    positions = list(range(len(targets)))
    rng.shuffle(positions)
    rows, start = [], 0
    for split, images in IMAGES.items():
        own = positions[start : start + len(positions) // len(IMAGES)]
        start += len(own)
        for number in range(images):
            pair = [rng.choice(own) for _ in range(2)]
            name = f"{split}{number:04}.png"
            canvas = Image.new("L", (CANVAS, CANVAS))
            for position, place in zip(pair, rng.sample(QUARTERS, 2), strict=True):
                picture = digits.digit_image(position).convert("L").resize((DIGIT, DIGIT))
                canvas.paste(picture, place)
            canvas.save(folder / name)
            labels = sorted({digits.CLASS_NAMES[targets[position]] for position in pair})
            rows.append((name, ";".join(labels), split))
    with open(folder / "labels.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("image", "label", "split"), *rows])
    return folder / "labels.csv"


def finetune(*arguments: str) -> str:
    """Run the command line as a user does; give what it prints."""
    command = [sys.executable, "-m", "finetune", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ).stdout


def scores_of(run: Path) -> tuple[float, ...]:
    """Score a run on its test images; give the scores in the order of the columns, in percent."""
    scores = json.loads(finetune("evaluate", str(run), "--split", "test", "--json"))
    return tuple(100 * scores[key] for key in ("map", "macro_f1", "accuracy"))


def train(epochs: int, seed: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Train once; give the scores with the thresholds of the run, and with 0.5 for every class."""
    with tempfile.TemporaryDirectory() as folder:
        run, table = Path(folder) / "run", draw(Path(folder), seed)
        keys = [f"seed={seed}", f"data.path={table}", 'data.label_separator=";"', "data.image_size=64"]
        keys += [f"stages.unfrozen.epochs={epochs}", "stages.unfrozen.lr=slice(1e-3, 1e-2)"]
        finetune("train", str(CONFIG), "--run-dir", str(run), *keys)
        chosen = scores_of(run)
        model = json.loads((run / "model.json").read_text(encoding="utf-8"))
        model["thresholds"] = [0.5] * len(model["thresholds"])
        write_covered(run, {"model.json": json.dumps(model).encode()})
        return chosen, scores_of(run)


def main() -> None:
    """Train with every seed, and print the table."""
    seeds = parser_with_seeds(__doc__).parse_args().seeds
    print_head(seeds, COLUMNS)
    for epochs in EPOCHS:
        outcomes = [train(epochs, FIRST + number) for number in range(seeds)]
        for how, of_seeds in zip(("thresholds of the run", "0.5"), zip(*outcomes, strict=True), strict=True):
            print_row(f"{epochs} epochs, {how}", of_seeds)


main()
