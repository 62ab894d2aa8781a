"""Compare recipes on photographs with fastai's `fine_tune` and with a head that is trained to the end.

    python benchmarks/photographs.py FOLDER... [--seeds 3] [--arch timm:tf_efficientnet_lite0] [--size 128]
        [--batch 32] [--frozen 1] [--epochs 4] [--tta] [--recipes NAME...] [--recipe NAME KEY=VALUE... ]...

Each folder holds train/ and val/ with one folder per class. All recipes have the same network, pretrained
weights, image size, batch size, epochs and seeds; each training has a process of its own, and the recipes
take turns. fastai is used as its tutorial does: `vision_learner(...).fine_tune(epochs, freeze_epochs=frozen)`
with its default rate and `aug_transforms`, and the weights' own mean and deviation.

Printed for each recipe, over the seeds: the accuracy of the model that is left (mean, lowest and highest),
how far it is ahead of fastai's with the standard error of that by paired images, the accuracy at the end of
the frozen stage and of the worst unfrozen epoch, the seconds of training, imports included, also as a
multiple of fastai's, and the most memory. With --tta a second table has the accuracy of finetune's models
with and without views that are averaged (`predict --tta`), the difference with its standard error by paired
images, the loss, and the price in forward passes for an image.
"""

import argparse
import json
import math
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ["FINETUNE_CACHE_SIZE"] = "0"  # what is timed is a first training

FASTAI = "fastai fine_tune"
HEAD_EPOCHS = 30
HEAD_ALONE = f"stages=[{{name: frozen, train: head, epochs: {HEAD_EPOCHS}, lr: 0.003, views: eval}}]"

Outcome = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """What all recipes share."""

    arch: str
    size: int
    """Side of the images in pixels."""
    batch: int
    frozen: int
    """Epochs of the head alone."""
    epochs: int
    """Epochs of everything, after these."""
    tta: bool
    """Whether finetune's models answer with averaged views as well."""
    seed: int = 0


Trainer = Callable[[Path, Setting], Outcome]
"""Trains on a folder with what all recipes share."""


def main(recipes: dict[str, Trainer], program: str, description: str | None) -> None:
    """Print a table for each folder; `program` is the file that calls this, and runs each training."""
    options = read_options(recipes, description)
    if options.worker:
        task = json.loads(options.worker)
        print(json.dumps(work(recipes, **task | {"setting": Setting(**task["setting"])})))
        return
    chosen: dict[str, list[str]] = {name: [] for name in options.recipes}
    chosen |= {name: changes for name, *changes in options.recipe}
    names = ("arch", "size", "batch", "frozen", "epochs", "tta")
    setting = Setting(**{name: getattr(options, name) for name in names})
    print(
        f"{options.arch}, {options.size} px, batches of {options.batch}, {options.frozen} frozen and "
        f"{options.epochs} unfrozen epochs, {options.seeds} seeds"
    )
    for folder in options.folders:
        outcomes = measure(program, folder, chosen, setting, options.seeds)
        show(folder.name, outcomes)
        show_views(folder.name, outcomes)


def read_options(recipes: dict[str, Trainer], description: str | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path)
    add_shared(parser)
    parser.add_argument("--tta", action="store_true")
    parser.add_argument("--recipes", nargs="*", default=list(recipes), choices=list(recipes))
    parser.add_argument("--recipe", nargs="+", action="append", default=[], metavar="NAME KEY=VALUE")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def add_shared(parser: argparse.ArgumentParser) -> None:
    """Add the options of what all trainings share, and the number of seeds."""
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arch", default="timm:tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--frozen", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=4)


def measure(
    program: str, folder: Path, chosen: dict[str, list[str]], setting: Setting, seeds: int
) -> dict[str, list[Outcome]]:
    """Train every recipe with every seed, the recipes taking turns; return what each training printed."""
    outcomes: dict[str, list[Outcome]] = {name: [] for name in chosen}
    for seed in range(seeds):
        for name, changes in chosen.items():
            shared = asdict(replace(setting, seed=seed))
            task = {"name": name, "changes": changes, "folder": str(folder), "setting": shared}
            command = [sys.executable, program, "--worker", json.dumps(task)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{name}: {done.stderr[-2000:]}")
            outcomes[name].append(json.loads(done.stdout.splitlines()[-1]))
    return outcomes


def show(title: str, outcomes: dict[str, list[Outcome]]) -> None:
    """Print the table of one folder."""
    print(f"\n| {title} | accuracy | ahead of fastai | after frozen | worst unfrozen epoch | time | memory |")
    print("|---|---|---|---|---|---|---|")
    reference = outcomes.get(FASTAI)
    for name, runs in outcomes.items():
        accuracies = [100 * statistics.mean(run["right"]) for run in runs]
        cells = [spread(accuracies), "" if reference is None else ahead(runs, reference)]
        cells += [percent(run["frozen"] for run in runs), percent(run["worst"] for run in runs)]
        seconds = statistics.mean(run["seconds"] for run in runs)
        base = statistics.mean(run["seconds"] for run in reference or runs)
        memory = max(run["memory"] for run in runs)
        print(f"| {name} | {' | '.join(cells)} | {seconds / base:.2f} ({seconds:.0f} s) | {memory:.1f} GB |")


def show_views(title: str, outcomes: dict[str, list[Outcome]]) -> None:
    """Print what averaged views change, for the recipes that were asked for them."""
    averaged = {name: runs for name, runs in outcomes.items() if "views" in runs[0]}
    if not averaged:
        return
    print(
        f"\n| {title} | one view | averaged views | gain | loss of one | loss of averaged | forward passes |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, runs in averaged.items():
        views = [run["views"] for run in runs]
        cells = [spread([100 * statistics.mean(one["right"]) for one in some]) for some in (runs, views)]
        cells.append(ahead(views, runs))
        cells += [f"{statistics.mean(one[key] for one in views):.3f}" for key in ("loss_of_one", "loss")]
        print(f"| {name} | {' | '.join(cells)} | {views[0]['passes']} |")


def spread(values: list[float]) -> str:
    """Write mean, lowest and highest of some percentages."""
    return f"{statistics.mean(values):.1f}% ({min(values):.1f} – {max(values):.1f})"


def percent(values: Iterator[float | None]) -> str:
    """Write the mean of some shares; a dash where there are none."""
    known = [100 * value for value in values if value is not None]
    return f"{statistics.mean(known):.1f}%" if known else "–"


def ahead(runs: list[Outcome], reference: list[Outcome]) -> str:
    """Write by how many points a recipe is ahead, with the standard error over images, paired by image."""
    ours, theirs = (zip(*(run["right"] for run in some), strict=True) for some in (runs, reference))
    means = zip(map(statistics.mean, ours), map(statistics.mean, theirs), strict=True)
    differences = [100 * (one - other) for one, other in means]
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    return f"{statistics.mean(differences):+.1f} ± {error:.1f}"


def work(
    recipes: dict[str, Trainer], name: str, changes: list[str], folder: str, setting: Setting
) -> Outcome:
    """Train once; return which validation images are classified right, accuracies, seconds and memory."""
    train = recipes.get(name, finetune_with(*changes))
    outcome = train(Path(folder), setting)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB on Linux
    return {**outcome, "memory": memory}


def val_files(folder: Path) -> list[tuple[Path, str]]:
    """List the validation images with their classes."""
    return [(path, path.parent.name) for path in sorted((folder / "val").glob("*/*")) if readable(path)]


def readable(path: Path) -> bool:
    """Tell whether a file is an image."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            image.convert("RGB")
    except (OSError, UnidentifiedImageError):
        return False
    return True


def finetune_with(*changes: str) -> Trainer:
    """Return a recipe that differs from finetune's defaults by `KEY=VALUE`."""
    return partial(train_finetune, changes=changes)


def train_finetune(folder: Path, setting: Setting, *, changes: Sequence[str] = ()) -> Outcome:
    """Train with finetune, by the config that `init` writes but for the epochs and what a recipe changes."""
    import finetune

    with tempfile.TemporaryDirectory() as runs:
        overrides = {
            "seed": setting.seed,
            "model.arch": setting.arch,
            "data.image_size": setting.size,
            "data.batch_size": setting.batch,
            "data.on_bad_image": "skip",
            "output.dir": runs,
            "stages.frozen.epochs": setting.frozen,
            "stages.unfrozen.epochs": setting.epochs,
        }
        for change in changes:
            key, _, value = change.partition("=")
            if key == "stages":
                overrides = {k: v for k, v in overrides.items() if not k.startswith("stages.")}
            overrides[key] = value_of(value)
        began = time.perf_counter()
        run = finetune.train(str(folder), overrides=overrides, quiet=True)
        seconds = time.perf_counter() - began
        rows = [(row.stage, row.val_accuracy) for row in run.epochs]
        files = val_files(folder)
        right, loss = judge(run.model, files)
        views = views_of(run.model, files, loss) if setting.tta else {}
    unfrozen = [accuracy for stage, accuracy in rows if stage != "frozen"]
    heads = [accuracy for stage, accuracy in rows if stage == "frozen"]
    return {**outcome_of(right, heads[-1] if heads else None, unfrozen, seconds), **views}


def judge(model: Any, files: list[tuple[Path, str]], *, tta: bool = False) -> tuple[list[bool], float]:
    """Return which images a model of finetune's classifies right, and its mean cross-entropy."""
    answers = model.predict([path for path, _ in files], tta=tta)
    pairs = list(zip(answers, (label for _, label in files), strict=True))
    losses = [-math.log(max(answer.probabilities[label], 1e-12)) for answer, label in pairs]
    return [answer.label == label for answer, label in pairs], statistics.mean(losses)


def views_of(model: Any, files: list[tuple[Path, str]], loss_of_one: float) -> Outcome:
    """Return what a model answers by averaged views."""
    right, loss = judge(model, files, tta=True)
    passes = model.tta_views
    right_as_numbers = [int(value) for value in right]
    return {"views": {"right": right_as_numbers, "loss": loss, "loss_of_one": loss_of_one, "passes": passes}}


def value_of(text: str) -> Any:
    """Read a value of a recipe: YAML, and numbers such as 3e-3, which YAML 1.1 takes for text."""
    import yaml

    number = re.fullmatch(r"[0-9.]+e[+-]?[0-9]+", text)
    return float(text) if number else yaml.safe_load(text)


def train_fastai(folder: Path, setting: Setting) -> Outcome:
    """Train as fastai's tutorial does, with the weights that finetune finds for the network."""
    began = time.perf_counter()
    from fastai.vision import all as fastai

    began -= time.perf_counter()  # what comes now is no work of fastai's
    from finetune.model import find_architecture, load_weights

    weights = load_weights("default", find_architecture(setting.arch), lambda _: None)
    fastai.set_seed(setting.seed, reproducible=True)
    files = [p for part in ("train", "val") for p in sorted((folder / part).glob("*/*")) if readable(p)]
    began += time.perf_counter()
    block = fastai.DataBlock(
        blocks=(fastai.ImageBlock, fastai.CategoryBlock),
        get_y=fastai.parent_label,
        splitter=fastai.GrandparentSplitter(train_name="train", valid_name="val"),
        item_tfms=fastai.Resize(round(setting.size * 1.25)),
        batch_tfms=[
            *fastai.aug_transforms(size=setting.size, min_scale=0.75),
            fastai.Normalize.from_stats(weights.preprocessing.mean, weights.preprocessing.std),
        ],
    )
    # Its default, a process for each core, took 37 s where this took 26: they start anew in each epoch.
    dls = block.dataloaders(files, bs=setting.batch, num_workers=0)
    accuracies: list[float] = []

    class Note(fastai.Callback):  # type: ignore[misc, name-defined]
        order = 60  # after the recorder, which forgets the frozen epochs when the unfrozen begin

        def after_epoch(self) -> None:
            accuracies.append(self.recorder.values[-1][-1])

    # Not `pretrained`: fastai would download the weights; these are the same ones, loaded below.
    own = setting.arch.removeprefix("timm:")
    learn = fastai.vision_learner(
        dls, own, pretrained=False, normalize=False, metrics=fastai.accuracy, cbs=Note()
    )
    body = learn.model[0].model
    wanted = set(body.state_dict())
    body.load_state_dict({name: tensor for name, tensor in (weights.tensors or {}).items() if name in wanted})
    with learn.no_bar(), learn.no_logging():
        learn.fine_tune(setting.epochs, freeze_epochs=setting.frozen)
    seconds = time.perf_counter() - began
    with learn.no_bar():
        predictions, targets = learn.get_preds(dl=dls.valid)
    right = (predictions.argmax(1) == targets).tolist()
    assert [Path(item) for item in dls.valid_ds.items] == [path for path, _ in val_files(folder)]
    return outcome_of(right, accuracies[setting.frozen - 1], accuracies[setting.frozen :], seconds)


def outcome_of(right: list[bool], frozen: float | None, unfrozen: list[float], seconds: float) -> Outcome:
    """Return what a worker prints."""
    return {
        "right": [int(value) for value in right],
        "frozen": frozen,
        "worst": min(unfrozen, default=None),
        "seconds": seconds,
    }


RECIPES: dict[str, Trainer] = {
    "finetune's defaults": finetune_with(),
    "statistics of batch norm move": finetune_with(
        "stages.frozen.batch_norm=train", "stages.unfrozen.batch_norm=train"
    ),
    f"head alone, {HEAD_EPOCHS} epochs of the evaluation view": finetune_with(HEAD_ALONE),
    FASTAI: train_fastai,
}


if __name__ == "__main__":
    main(RECIPES, __file__, __doc__)
