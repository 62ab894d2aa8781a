"""Measure on photographs how far calibrated probabilities can be believed, and what `unlike` tells apart.

    python benchmarks/confidence.py FOLDER FOLDER... [--seeds 3] [--config configs/photographs.yaml]

Each folder holds train/ and val/ with one folder per class. Of each a model is trained by the config. The
first table has the temperature, and the expected calibration error and the loss on the validation images
before and after it, cross-validated, as a run reports them. The second shows each model its own validation
photographs and those of all other folders: how many of either it calls unlike what it was trained on, the
area under the curve of their distances (0.5 is chance), and how certain it is of the others.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from photographs import val_files

import finetune


def main() -> None:
    """Train, and print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--config", type=Path, default=Path("configs/photographs.yaml"))
    options = parser.parse_args()
    photographs = {folder: [path for path, _ in val_files(folder)] for folder in options.folders}
    calibration, known = [], []
    for folder in options.folders:
        own = photographs[folder]
        others = [path for other in options.folders if other != folder for path in photographs[other]]
        with tempfile.TemporaryDirectory() as runs:
            trained = [train(options.config, folder, seed, Path(runs)) for seed in range(options.seeds)]
            calibration.append(calibration_row(folder.name, [run.report["calibration"] for run in trained]))
            judged = [judge(run.model, own, others) for run in trained]
            known.append((folder.name, *(means(column) for column in zip(*judged, strict=True))))
    show(("trained on", "temperature", "calibration error", "after", "loss", "after"), calibration)
    show(("trained on", "own called unlike", "others called unlike", "AUROC", "certainty of others"), known)


def train(config: Path, folder: Path, seed: int, runs: Path) -> Any:
    """Train on a folder; return the run."""
    overrides = {"data.path": str(folder), "seed": seed, "data.on_bad_image": "skip", "output.dir": str(runs)}
    return finetune.train(str(config), overrides=overrides, quiet=True)


def calibration_row(name: str, reports: list[dict[str, Any]]) -> tuple[str, ...]:
    """Return the row of a folder in the first table, means over the seeds."""
    temperature = statistics.mean(report["temperature"] for report in reports)
    cells = [name, f"{temperature:.2f}"]
    for key, form in (("expected_calibration_error", "{:.1%}"), ("loss", "{:.3f}")):
        for moment in ("before", "after"):
            cells.append(form.format(statistics.mean(report[key][moment] for report in reports)))
    return tuple(cells)


def judge(model: Any, own: list[Path], others: list[Path]) -> tuple[float, float, float, float]:
    """Return the shares of both that are called unlike, the AUROC of distances, and certainty of others."""
    answers = [model.predict(paths, quiet=True) for paths in (own, others)]
    shares = [statistics.mean(bool(answer.unlike) for answer in some) for some in answers]
    near, far = (distances(model, paths) for paths in (own, others))
    area = float((far[:, None] > near[None, :]).double().mean())
    return shares[0], shares[1], area, statistics.mean(answer.certainty for answer in answers[1])


def distances(model: Any, paths: list[Path]) -> torch.Tensor:
    """Return how far photographs are from those that a model was trained on."""
    found = []
    for start in range(0, len(paths), 32):
        pixels = torch.stack([model.preprocess(path) for path in paths[start : start + 32]])
        with torch.no_grad():
            found.append(model.module.features(pixels.to(model.device)).cpu())
    known: torch.Tensor = model._trained.known.distances(torch.cat(found))
    return known


def means(values: tuple[float, ...]) -> str:
    """Write the mean over the seeds."""
    return f"{statistics.mean(values):.3f}"


def show(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print a Markdown table."""
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


if __name__ == "__main__":
    main()
