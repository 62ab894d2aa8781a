"""Measure what finding a rate costs, in epochs of the stage that it is found for.

    python benchmarks/search_cost.py                       # resnet18 at 224 px; minutes on two cores
    python benchmarks/search_cost.py --arch resnet50 --rounds 5

On a frozen stage the features of the images are computed once, and the range test and all racers train on
them; so the whole search should cost about one epoch, which is a pass over the training and the validation
images. On an unfrozen stage each of the steps is a step of the whole model. Epoch and search take turns; what
is printed is the median of the rounds.
"""

import argparse
import statistics
import time
from io import StringIO

from regret import fit

from finetune.commands.prepare import prepare
from finetune.config.load import parse_config
from finetune.display import Display
from finetune.experiment.loaders import build_loaders
from finetune.experiment.lr_search import find_lr
from finetune.lr_finder.trial import no_trace

CONFIG = """
data:
  {path: "builtin:digits", images_per_class: 100, val: 0.2, image_size: 224, batch_size: 32, augment: light}
model: {arch: resnet18, weights: none}
stages:
  - {name: frozen, train: head, epochs: 4, lr: 3e-3}
  - {name: unfrozen, train: all, epochs: 4, lr: "slice(1e-5, 1e-3)"}
"""


def main() -> None:
    """Print the cost of a search with and without the race, for both stages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    config = parse_config(CONFIG, "config", [f"model.arch={arguments.arch}"])
    experiment = prepare(config, Display(StringIO()))
    loaders = build_loaders(experiment)
    for number, stage in enumerate(config.stages):
        epochs, searches = [], []
        for _ in range(arguments.rounds if number == 0 else 1):
            started = time.perf_counter()
            with no_trace(experiment.model):
                fit(experiment, number, loaders, 1e-3)
            epochs.append((time.perf_counter() - started) / stage.epochs)
            found = find_lr(experiment, number, loaders)
            searches.append(found.seconds)
        ratio = statistics.median(one / other for one, other in zip(searches, epochs, strict=True))
        epoch, search = statistics.median(epochs), statistics.median(searches)
        seconds = f"an epoch takes {epoch:.1f} s, the search {search:.1f} s"
        race = f"{len(found.candidates)} racers of {found.race_steps} steps"
        print(f"{stage.name}: {seconds}: {ratio:.2f} epochs ({race})", flush=True)


main()
