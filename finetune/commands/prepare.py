"""What `train` and `lr-find` begin with: the data, the model, and what was noticed of them."""

from finetune.config.config import Config
from finetune.display import Display
from finetune.experiment.build import Experiment, build_experiment
from finetune.experiment.ranks import check_same_images
from finetune.experiment.read_data import read_data
from finetune.machine.cache import most_decoded_bytes
from finetune.machine.device import choose_device, keep_large_buffers
from finetune.machine.ranks import ALONE, Ranks


def prepare(config: Config, display: Display, ranks: Ranks = ALONE) -> Experiment:
    """Read the data, build the model, and show what was noticed: of the data before a download begins.

    Raises:
        FinetuneError: images, weights, names or a device that are not as the config says; or the environment
            sets a size of the cache that is none.
    """
    keep_large_buffers()
    most_decoded_bytes()  # not an hour later
    device = choose_device(config.device, ranks)
    with ranks.local_first():
        data = read_data(config, display.bar)
    check_same_images(ranks, data.index)
    display.show(data.notes)
    experiment = build_experiment(config, device, data, say=display.say, ranks=ranks)
    display.show(experiment.notes)
    return experiment
