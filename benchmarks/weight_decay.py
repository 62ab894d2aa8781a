"""Compare optimizers and weight decays, each optimizer at the rate that is found for it.

    python benchmarks/weight_decay.py                 # minutes on two cores
    python benchmarks/weight_decay.py --decay l2      # decay as a penalty, in the gradient
    python benchmarks/weight_decay.py --optimizers adam lamb

The embedded digits with few images per class, features of the glyph network, a head with a hidden layer: a
task in which decay can help and harm. For each optimizer and seed the rate is found as `lr: auto` finds it,
at a decay of 0.01; then the stage is trained at that rate with every decay. Shown are the means over the
seeds of the validation accuracy and, in brackets, of the loss, after the last epoch.
"""

import argparse
import multiprocessing
import statistics
import warnings
from dataclasses import replace
from typing import Any

import torch
from regret import Task, fit, start

from finetune.errors import DivergenceError
from finetune.experiment.lr_search import find_lr
from finetune.lr_finder.trial import no_trace
from finetune.metrics.single_label import accuracy, cross_entropy
from finetune.optim.update_rules import UPDATE_RULES

DECAYS = (0.0, 0.01, 0.1, 1.0)
OVERRIDES = ("data.images_per_class=20", "stages.frozen.epochs=20")


def measure(job: tuple[str, str, int]) -> dict[str, Any]:
    """Return the found rate of an optimizer, and the outcome with each decay."""
    name, decay, seed = job
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    overrides = (*OVERRIDES, f"optimizer.name={name}")
    if decay in UPDATE_RULES[name].decays:  # type: ignore[index]
        overrides = (*overrides, f"optimizer.decay={decay}")
    experiment, loaders = start(Task(overrides), seed)
    found = find_lr(experiment, 0, loaders)
    outcomes: dict[float, tuple[float, float] | None] = {}
    for weight_decay in DECAYS if found.lr is not None else ():
        config = experiment.config
        optimizer = config.optimizer.model_copy(update={"weight_decay": weight_decay})
        decayed = replace(experiment, config=config.model_copy(update={"optimizer": optimizer}))
        with no_trace(experiment.model):
            try:
                last = fit(decayed, 0, loaders, found.lr)
            except DivergenceError:
                outcomes[weight_decay] = None
                continue
        outcomes[weight_decay] = (
            accuracy(last.val_logits, last.val_targets),
            cross_entropy(last.val_logits, last.val_targets),
        )
    return {"optimizer": name, "seed": seed, "lr": found.lr, "outcomes": outcomes}


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--optimizers", nargs="*", default=list(UPDATE_RULES))
    parser.add_argument("--decay", choices=("decoupled", "l2"), default="decoupled")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    seeds = range(1, arguments.seeds + 1)
    jobs = [(name, arguments.decay, seed) for name in arguments.optimizers for seed in seeds]
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        records = pool.map(measure, jobs, chunksize=1)
    print(f"validation accuracy in %, in brackets the loss; {arguments.decay} decay, {len(seeds)} seeds")
    print(f"| optimizer | found rate | {' | '.join(f'decay {decay:g}' for decay in DECAYS)} |")
    print(f"|{'---|' * (len(DECAYS) + 2)}")
    for name in arguments.optimizers:
        of_name = [record for record in records if record["optimizer"] == name]
        rates = [record["lr"] for record in of_name if record["lr"] is not None]
        cells = []
        for weight_decay in DECAYS:
            got = [record["outcomes"].get(weight_decay) for record in of_name]
            whole = [outcome for outcome in got if outcome is not None]
            mean = " ".join(
                [
                    f"{100 * statistics.mean(of for of, _ in whole):.1f}",
                    f"({statistics.mean(loss for _, loss in whole):.2f})",
                ]
                if whole
                else ["–"]
            )
            cells.append(mean + (f", {len(got) - len(whole)} diverged" if len(whole) < len(got) else ""))
        shown = f"{statistics.median(rates):.1e}" if rates else "none"
        print(f"| {name} | {shown} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
