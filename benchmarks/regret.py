"""Measure what a learning-rate heuristic costs: the regret of training at its pick.

    python benchmarks/regret.py --save regret.json            # everything; about an hour on two cores
    python benchmarks/regret.py --tasks momentum --seeds 1    # one task

What `--save` finds in its file is not measured again: an interrupted measurement goes on there, and a
finished one is printed anew. After a change of the finder `--anew` looks for all rates again, and trains only
at those that no training has been measured at.

For each task and seed the same stage is trained, from the same start, at every rate of a grid (two a decade)
and at every rate that a heuristic picks: ours, and those of fastai's `lr_find` called as its users call it.
A training's accuracy varies by a point or two with nothing but the order of the images, so each rate is
trained three times with other orders and dropout, and counts with the mean. Regret is how much worse the
validation accuracy (in points) and loss (in nats) are at the pick than at the best of all these rates. The
best of twenty noisy means looks better than it is; the row "best rate again" shows by how much: it is the
regret of the best rate itself when it is trained three times anew, and the column "anew" is the median regret
against those trainings, which luck has not chosen. A training that diverges counts as
guessing.
"""

import argparse
import json
import math
import multiprocessing
import statistics
import tempfile
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from finetune.commands.prepare import prepare
from finetune.config.config import Config
from finetune.config.load import parse_config
from finetune.data.builtin import digits
from finetune.data.split import stratified_split
from finetune.display import Display
from finetune.errors import DivergenceError
from finetune.experiment.build import (
    Experiment,
    build_loss,
    build_stage_optimizer,
    build_step,
    fit_stage,
    freeze_for_stage,
    plan_groups,
)
from finetune.experiment.loaders import build_loaders, build_val_loader
from finetune.experiment.lr_search import build_trial, find_lr
from finetune.lr_finder.heuristics import ORDER
from finetune.lr_finder.result import LrFindResult
from finetune.lr_finder.trial import no_trace
from finetune.metrics.single_label import accuracy, cross_entropy
from finetune.optim.build import has_momentum
from finetune.training.events import Epoch, Hooks, Loaders

REPEATS = 3
GRID = [10 ** (half / 2) for half in range(-7, 2)]

# Small networks and images, so that a training takes seconds; range test and race have their defaults.
BASE = """
precision: float32
data: {path: "builtin:digits", val: 0.4, images_per_class: 50, image_size: 32, batch_size: 16, augment: none,
  workers: 0}
model: {arch: shufflenet_v2_x0_5, weights: "builtin:glyphs", head: {hidden: [128]}}
stages: [{name: frozen, train: head, epochs: 4, lr: 3e-3}]
"""
FROZEN_FIRST = "{name: frozen, train: head, epochs: 3, lr: 3e-3}"
ALL = "{name: all, train: all, epochs: 4, lr: 'slice(%s)'}"


# What is compared of ours: the curve alone, and races of two lengths; the last is the default.
SEARCHES = {
    f"{ORDER[0]} (curve alone)": {"pick": ORDER[0]},
    "race, 30 steps": {"pick": "race", "race_steps": 30},
    "race": {"pick": "race"},
}


@dataclass(frozen=True)
class Task:
    """One stage of training whose rate is looked for."""

    overrides: tuple[str, ...] = ()
    stage: int = 0
    """Which stage; the ones before it are trained at the rates that the config gives them."""
    label_noise: float = 0.0
    """Share of training images that get a random label, 0–1."""
    drawn: int = 0
    """Training images per class that are drawn from the digits by moving and blurring; 0 for none."""


TASKS = {
    "20 images per class": Task(("data.images_per_class=20", "stages.frozen.epochs=10")),
    "100 images per class": Task(("data.images_per_class=100", "data.batch_size=32")),
    "1,000 images per class": Task(
        ("data.images_per_class=null", "data.val=val", "data.batch_size=64", "stages.frozen.epochs=2"),
        drawn=1000,
    ),
    "noisy labels": Task(label_noise=0.3),
    "momentum": Task(("optimizer.name=momentum",)),
    "linear probe": Task(("model.head={hidden: []}",)),
    "unfrozen": Task((f"stages=[{ALL % '1e-3, 1e-1'}]",)),
    "unfrozen, momentum": Task((f"stages=[{ALL % '1e-2, 1e-1'}]", "optimizer.name=momentum")),
    "unfrozen after frozen": Task((f"stages=[{FROZEN_FIRST}, {ALL % '1e-5, 1e-3'}]",), stage=1),
    "the same, augmented": Task(
        (f"stages=[{FROZEN_FIRST}, {ALL % '1e-5, 1e-3'}]", "data.augment=light"), stage=1
    ),
    "trained head": Task(
        (f"stages=[{FROZEN_FIRST}, {{name: more, train: head, epochs: 4, lr: 1e-3}}]",), stage=1
    ),
    "resnet18 from scratch": Task(
        (
            "model.arch=resnet18",
            "model.weights=none",
            "stages=[{name: all, train: all, epochs: 4, lr: 1e-3}]",
        ),
    ),
}


def measure(job: tuple[str, int, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return everything about one task and seed, as JSON can hold it; some rates may be measured already."""
    name, seed, known = job
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    task = TASKS[name]
    experiment, loaders = start(task, seed)
    trained = {row["lr"]: {"loss": row["loss"], "accuracy": row["accuracy"]} for row in known}

    def outcome(lr: float) -> dict[str, float | None]:
        if lr not in trained:
            trained[lr] = train_at(experiment, task.stage, loaders, lr)
        return trained[lr]

    record: dict[str, Any] = {"task": name, "seed": seed, "picks": {}, "seconds": {}}
    for lr in GRID:
        outcome(lr)
    for kind, settings in SEARCHES.items():
        found = search(experiment, task.stage, loaders, settings)
        record["picks"][kind] = found.lr
        record["seconds"][kind] = found.seconds
    record["found"] = found.to_dict()  # of the last, which is the default
    for suggestion in found.suggestions:
        record["picks"][f"ours: {suggestion.heuristic}"] = suggestion.lr
    started = time.perf_counter()
    for heuristic, lr in fastai_suggestions(experiment, task.stage, loaders).items():
        record["picks"][f"fastai: {heuristic}"] = lr
    record["seconds"]["fastai"] = (time.perf_counter() - started) / 4  # one sweep would do for all four
    for lr in record["picks"].values():
        if lr is not None:
            outcome(lr)
    best = max(trained, key=lambda lr: trained[lr]["accuracy"] or 0)
    record["again"] = {"lr": best, **train_at(experiment, task.stage, loaders, best, first=REPEATS)}
    record["trained"] = [{"lr": lr, **scores} for lr, scores in sorted(trained.items())]
    print(f"{name}, seed {seed}: {record['picks']}", flush=True)
    return record


def start(task: Task, seed: int) -> tuple[Experiment, Loaders]:
    """Prepare a task up to the stage whose rate is looked for."""
    overrides = [f"seed={seed}", *task.overrides]
    if task.drawn:
        overrides.append(f"data.path={json.dumps(str(drawn_digits(task.drawn, seed)))}")
    config: Config = parse_config(BASE, "task", overrides)
    experiment = prepare(config, quiet())
    if task.label_noise:
        experiment = replace(experiment, index=with_noise(experiment, task.label_noise))
    # Validation takes large batches: it is done after each of hundreds of epochs, and is the same with any.
    large = config.model_copy(update={"data": config.data.model_copy(update={"batch_size": 256})})
    val = build_val_loader(replace(experiment, config=large))
    loaders = replace(build_loaders(experiment), val=val)
    for number in range(task.stage):
        fit(experiment, number, loaders, config.stages[number].lr.last)
    return experiment, loaders


def search(experiment: Experiment, number: int, loaders: Loaders, settings: dict[str, Any]) -> LrFindResult:
    """Find the rate of a stage with other settings of the finder."""
    config = experiment.config
    finder = config.lr_finder.model_copy(update=settings)
    experiment = replace(experiment, config=config.model_copy(update={"lr_finder": finder}))
    return find_lr(experiment, number, loaders)


def train_at(
    experiment: Experiment, number: int, loaders: Loaders, lr: float, *, first: int = 0
) -> dict[str, float | None]:
    """Train the stage at a rate, with other orders and dropout each time; give the means of the outcomes.

    The loss is None where a training diverged; its accuracy is then that of guessing.
    """
    losses, accuracies = [], []
    for repeat in range(first, first + REPEATS):
        with no_trace(experiment.model):
            try:
                last = fit(experiment, number, loaders, lr, repeat=repeat)
            except DivergenceError:
                return {"loss": None, "accuracy": 1 / len(experiment.index.class_names)}
        losses.append(cross_entropy(last.val_logits, last.val_targets))
        accuracies.append(accuracy(last.val_logits, last.val_targets))
    loss = statistics.mean(losses)
    return {"loss": loss if math.isfinite(loss) else None, "accuracy": statistics.mean(accuracies)}


def fit(experiment: Experiment, number: int, loaders: Loaders, lr: float, *, repeat: int = 0) -> Epoch:
    """Train a stage as `finetune train` does, with the head at `lr`; give its last epoch.

    Under a frozen backbone the head trains on features that were computed once: without augmentation that is
    the same training.
    """
    config = experiment.config
    stage = config.stages[number]
    stage = stage.model_copy(update={"lr": stage.lr.peaking_at(lr)})
    freeze_for_stage(stage, experiment.model)
    optimizer = build_stage_optimizer(config, plan_groups(config, stage, experiment.model))
    module: torch.nn.Module = experiment.model
    if experiment.model.only_head_learns and config.data.augment == "none":
        module, loaders = experiment.model.head, over_features(experiment, number, loaders)
    epochs: list[Epoch] = []
    hooks = Hooks(step=lambda step: None, epoch=epochs.append, val_batch=lambda done, total: None)
    step = build_step(experiment, optimizer, number + 100 * repeat, module=module)
    fit_stage(experiment, step, loaders, hooks, epochs=stage.epochs)
    return epochs[-1]


def over_features(experiment: Experiment, number: int, loaders: Loaders) -> Loaders:
    """Return loaders of the features of a frozen backbone in place of those of its images."""
    of_model = _FEATURES.setdefault(experiment.model, {})
    if number not in of_model:
        trial = build_trial(experiment, number, loaders, 10**6)
        of_model[number] = Loaders(trial.train, [tuple(batch) for batch in trial.val], loaders.device)  # type: ignore[arg-type]
    return of_model[number]


_FEATURES: "weakref.WeakKeyDictionary[torch.nn.Module, dict[int, Loaders]]" = weakref.WeakKeyDictionary()


class FastaiLoader:
    """One of our loaders as fastai's finder goes through it: epoch after epoch, without a word."""

    def __init__(self, loader: Any, stage: int) -> None:
        self.loader, self.stage, self.epoch = loader, stage, 0

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        self.loader.sampler.start_epoch(self.stage, self.epoch)
        self.epoch += 1
        return iter(self.loader)


def fastai_suggestions(experiment: Experiment, number: int, loaders: Loaders) -> dict[str, float | None]:
    """Ask fastai's `lr_find` for all its suggestions, over our model, optimizer and loaders.

    As in fastai all groups are swept at one rate. A suggestion that raises is None.
    """
    from fastai.callback.schedule import minimum, slide, steep, valley
    from fastai.learner import Learner
    from fastai.optimizer import OptimWrapper

    config = experiment.config
    freeze_for_stage(config.stages[number], experiment.model)
    plans = plan_groups(config, config.stages[number], experiment.model)
    optimizer = build_stage_optimizer(config, plans)
    if "momentum" in optimizer.param_groups[0] and not has_momentum(optimizer):
        raise ValueError("fastai's finder is compared with optimizers that have momentum")
    found: dict[str, float | None] = {}
    for function in (valley, steep, minimum, slide):
        wrapped = Loaders(FastaiLoader(loaders.train, number), loaders.val, loaders.device)  # type: ignore
        with (
            no_trace(experiment.model),
            tempfile.TemporaryDirectory() as folder,
            redirect_stdout(StringIO()),
        ):
            learner = Learner(
                wrapped,
                experiment.model,
                loss_func=build_loss(experiment),
                opt_func=OptimWrapper(opt=optimizer),
                path=folder,
                train_bn=False,
            )
            with learner.no_bar(), learner.no_logging():
                try:
                    found[function.__name__] = float(
                        getattr(
                            learner.lr_find(show_plot=False, suggest_funcs=(function,)), function.__name__
                        )
                    )
                except (IndexError, ValueError, RuntimeError):
                    found[function.__name__] = None
    return found


def with_noise(experiment: Experiment, share: float) -> Any:
    """Return the index with a share of its training labels drawn at random."""
    random = np.random.default_rng(experiment.config.seed)
    classes = len(experiment.index.class_names)
    samples = tuple(
        sample._replace(target=int(random.integers(classes)))
        if sample.split == "train" and random.random() < share
        else sample
        for sample in experiment.index.samples
    )
    return replace(experiment.index, samples=samples)


@cache
def drawn_digits(per_class: int, seed: int) -> Path:
    """Draw a data set from the digits: train images turned, moved and blurred, val images as they are."""
    folder = Path(tempfile.gettempdir()) / f"finetune-regret-{per_class}-{seed}"
    if folder.exists():
        return folder
    random = np.random.default_rng(seed)
    images, targets = digits.load_digits()
    names = digits.sample_names()
    held_out = np.array(stratified_split(names, targets.tolist(), fraction=0.4, seed=seed))
    partial_folder = folder.with_name(folder.name + ".part")
    for target in range(10):
        for part in ("train", "val"):
            (partial_folder / part / str(target)).mkdir(parents=True, exist_ok=True)
        for i in np.flatnonzero(held_out & (targets == target)):
            digits.digit_image(i).save(partial_folder / "val" / str(target) / f"{i}.png")
        pool = np.flatnonzero(~held_out & (targets == target))
        for i, source in enumerate(random.choice(pool, per_class)):
            vary(images[source], random).save(partial_folder / "train" / str(target) / f"{i}.png")
    partial_folder.rename(folder)
    return folder


def vary(pixels: np.ndarray, random: np.random.Generator) -> Image.Image:
    """Turn a digit by up to 20°, scale it by up to a fifth, move it by up to a pixel, and add noise."""
    angle, scale = math.radians(random.uniform(-20, 20)), random.uniform(0.8, 1.2)
    right, down = random.uniform(-1, 1, 2)
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    centre = 3.5
    matrix = (cos, sin, centre - cos * (centre + right) - sin * (centre + down))
    matrix += (-sin, cos, centre + sin * (centre + right) - cos * (centre + down))
    image = Image.fromarray(pixels).transform(
        (8, 8), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC
    )
    noisy = np.asarray(image) + random.normal(0, 20, (8, 8))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).convert("RGB")


def quiet() -> Display:
    """Return a display that shows nothing."""
    return Display(StringIO())


class Regret:
    """How much worse a rate is than the best one, in one task and seed."""

    def __init__(self, record: dict[str, Any]) -> None:
        self.trained = [(row["lr"], row["loss"], row["accuracy"]) for row in record["trained"]]
        self.best_loss = min(loss for _, loss, _ in self.trained if loss is not None)
        self.best_accuracy = max(accuracy for _, _, accuracy in self.trained)
        self.again = 100 * (self.best_accuracy - record["again"]["accuracy"])
        """Of the best rate, trained anew."""

    def accuracy(self, lr: float) -> float:
        """Return the regret in points of accuracy; between trained rates it is interpolated over log-rate."""
        at = np.log([rate for rate, _, _ in self.trained])
        return 100 * (
            self.best_accuracy - float(np.interp(math.log(lr), at, [row[2] for row in self.trained]))
        )

    def loss(self, lr: float) -> float:
        """Return the regret in nats at a trained rate; of a training that diverged, that of guessing."""
        loss = next(row[1] for row in self.trained if row[0] == lr)
        return (math.log(10) if loss is None else loss) - self.best_loss

    def diverged(self, lr: float) -> bool:
        """Tell whether training at a rate ended with a loss that is not finite, or worse than guessing."""
        loss = next(row[1] for row in self.trained if row[0] == lr)
        return loss is None or loss > math.log(10)


def print_heuristics(records: list[dict[str, Any]]) -> None:
    """Print the regret of every heuristic over all tasks and seeds."""
    print(f"\n{len(records)} tasks × seeds; regret of accuracy in points, of loss in nats")
    print("| rate from | median accuracy | worst | anew | median loss | worst | diverged | refused |")
    print("|---|---|---|---|---|---|---|---|")
    for name in records[0]["picks"]:
        picks = [(Regret(record), record["picks"][name]) for record in records]
        taken = [(regret, lr) for regret, lr in picks if lr is not None]
        accuracy, loss = [r.accuracy(lr) for r, lr in taken], [r.loss(lr) for r, lr in taken]
        anew = statistics.median(r.accuracy(lr) - r.again for r, lr in taken)
        print(
            f"| {name} | {statistics.median(accuracy):.2f} | {max(accuracy):.2f} | {anew:.2f} "
            f"| {statistics.median(loss):.3f} | {max(loss):.3f} "
            f"| {sum(r.diverged(lr) for r, lr in taken)} | {len(picks) - len(taken)} |"
        )
    floor = [Regret(record).again for record in records]
    floor_loss = [r["again"]["loss"] - Regret(r).best_loss for r in records if r["again"]["loss"]]
    print(
        f"| best rate again | {statistics.median(floor):.2f} | {max(floor):.2f} | 0 "
        f"| {statistics.median(floor_loss):.3f} | {max(floor_loss):.3f} | 0 | 0 |"
    )
    for what in records[0]["seconds"]:
        seconds = [record["seconds"][what] for record in records]
        print(f"seconds, {what}: median {statistics.median(seconds):.1f}, most {max(seconds):.1f}")


def print_tasks(records: list[dict[str, Any]]) -> None:
    """Print, task by task, the best rate and the median regret of what is picked."""
    shown = [*SEARCHES, *(name for name in records[0]["picks"] if name.startswith("fastai"))]
    print("\nmedian regret of accuracy in points, by task")
    print(f"| task | best rate | best accuracy | {' | '.join(shown)} |\n|{'---|' * (len(shown) + 3)}")
    for name in dict.fromkeys(record["task"] for record in records):
        of_task = [record for record in records if record["task"] == name]
        regrets = [Regret(record) for record in of_task]
        best = [max(regret.trained, key=lambda row: row[2])[0] for regret in regrets]
        cells = []
        for column in shown:
            values = [
                regret.accuracy(record["picks"][column])
                for regret, record in zip(regrets, of_task, strict=True)
                if record["picks"][column] is not None
            ]
            cells.append(f"{statistics.median(values):.1f}" if values else "refused")
        accuracy = statistics.median(100 * regret.best_accuracy for regret in regrets)
        print(f"| {name} | {statistics.median(best):.1e} | {accuracy:.1f} | {' | '.join(cells)} |")


def tie_rules() -> dict[str, Callable[[list[dict[str, Any]]], dict[str, Any]]]:
    """Return the ways to call the winner of a race that are compared."""

    def tied(racers: list[dict[str, Any]], errors: float) -> list[dict[str, Any]]:
        lowest = min(racer["val_loss"] for racer in racers)
        return [r for r in racers if r["val_loss"] - lowest <= errors * r["standard_error"]]

    return {
        "lowest loss": lambda racers: min(racers, key=lambda r: r["val_loss"]),
        "highest accuracy, then loss": lambda racers: max(
            racers, key=lambda r: (r["val_accuracy"], -r["val_loss"])
        ),
        "lowest rate within 1 standard error": lambda racers: min(tied(racers, 1), key=lambda r: r["lr"]),
        "highest rate within 1 standard error": lambda racers: max(tied(racers, 1), key=lambda r: r["lr"]),
        "highest accuracy within 1 standard error": lambda racers: max(
            tied(racers, 1), key=lambda r: (r["val_accuracy"], -r["val_loss"])
        ),
        "highest accuracy within 2 standard errors": lambda racers: max(
            tied(racers, 2), key=lambda r: (r["val_accuracy"], -r["val_loss"])
        ),
    }


def print_tie_rules(records: list[dict[str, Any]]) -> None:
    """Print what each tie rule would have cost; full trainings at its winner's rate are interpolated."""
    print("\nthe race under other rules; regret of accuracy in points")
    print("| winner | median | mean | worst |\n|---|---|---|---|")
    for name, rule in tie_rules().items():
        regrets = []
        for record in records:
            finished = [racer for racer in record["found"]["race"] if racer["val_loss"] is not None]
            if finished:
                regrets.append(Regret(record).accuracy(rule(finished)["lr"]))
        middle, mean = statistics.median(regrets), statistics.mean(regrets)
        print(f"| {name} | {middle:.2f} | {mean:.2f} | {max(regrets):.2f} |")


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), help="beginnings of names")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--save", type=Path, help="keep the measurements in a JSON file, and go on from it")
    parser.add_argument("--anew", action="store_true", help="look for the rates of saved tasks again")
    arguments = parser.parse_args()
    names = [task for task in TASKS if task.startswith(tuple(arguments.tasks))]
    jobs = [(name, seed) for seed in range(1, arguments.seeds + 1) for name in names]
    saved = arguments.save and arguments.save.exists()
    measured = {
        (record["task"], record["seed"]): record
        for record in (json.loads(arguments.save.read_text()) if saved else [])
    }
    known = {job: record["trained"] for job, record in measured.items()}
    open_jobs = [(*job, known.get(job, [])) for job in jobs if arguments.anew or job not in measured]
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        for record in pool.imap_unordered(measure, open_jobs):
            measured[record["task"], record["seed"]] = record
            if arguments.save:
                arguments.save.write_text(json.dumps(list(measured.values())))
    records = [measured[job] for job in jobs]
    print_heuristics(records)
    print_tasks(records)
    print_tie_rules(records)


if __name__ == "__main__":
    main()
