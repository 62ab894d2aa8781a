"""How the processes of a training share its batches."""

import hashlib

import torch

from finetune.config.config import Config
from finetune.data.image_files import sizes_and_times
from finetune.data.index import ImageIndex
from finetune.data.loading.share import BatchShare
from finetune.errors import ConfigError, DataError
from finetune.machine.ranks import Ranks
from finetune.model import ImageClassifier
from finetune.optim.update_rules import UPDATE_RULES
from finetune.text import counted, printable


def batch_share(config: Config, ranks: Ranks) -> BatchShare | None:
    """Return which rows of each batch a rank goes through; None where it is alone."""
    data = config.data
    return None if ranks.alone else BatchShare(ranks, data.images_per_step, data.accumulate, data.mixes)


def check_ranks(ranks: Ranks, batch_size: int, *, compiled: bool = False) -> None:
    """Refuse more processes than a batch has images, and several for a network that is compiled.

    Raises:
        ConfigError: some would have nothing to do, or what connects their batches would be compiled away.
    """
    if compiled and not ranks.alone:
        raise ConfigError(
            f"compile: {counted(ranks.size, 'device')} cannot share the batches of a compiled network.\n"
            "Set compile=false, or train on one device."
        )
    if ranks.size > batch_size:
        raise ConfigError(
            f"data.batch_size: {counted(ranks.size, 'device')} cannot share batches of "
            f"{counted(batch_size, 'image')}.\nSet it to {ranks.size} or more, or train on fewer devices."
        )


def divides_weights(config: Config, ranks: Ranks) -> bool:
    """Tell whether each rank holds a part of the backbone alone."""
    return config.shard == "weights" and not ranks.alone


def put_on_device(model: ImageClassifier, config: Config, ranks: Ranks, device: torch.device) -> None:
    """Put a model that is on the CPU where it is trained: all of it, or what this rank holds of it.

    Raises:
        ConfigError: weights of this network, or for this optimizer, cannot be divided.
    """
    if not divides_weights(config, ranks):
        model.to(device)
        return
    if config.optimizer.name not in UPDATE_RULES:
        raise ConfigError(
            f"shard: {config.optimizer.name} is the optimizer of a package, which may look at whole tensors; "
            "there are none.\nSet shard: none, or an optimizer of finetune's own."
        )
    from finetune.training.sharding import divide_weights  # which few trainings need

    divide_weights(model, ranks, device)


def device_lines(config: Config, ranks: Ranks) -> list[str]:
    """Say what each rank has of a batch and of the weights; usually nothing of one that is alone."""
    lines = [] if ranks.alone else [ranks_line(ranks, config.data.batch_size)]
    if divides_weights(config, ranks):
        lines.append(f"shard   each holds 1/{ranks.size} of the backbone's weights, gradients and states")
    elif config.shard == "weights":
        lines.append("shard   one device holds everything; there is no other to divide the weights with")
    return lines


def ranks_line(ranks: Ranks, batch_size: int) -> str:
    """Say how the ranks share a batch."""
    whole, rest = divmod(batch_size, ranks.size)
    each = f"{whole} images each" if not rest else f"{whole + 1} images for {rest}, {whole} for the others"
    return f"devices {ranks.size} share each batch of {batch_size}: {each}"


def check_same_images(ranks: Ranks, index: ImageIndex) -> None:
    """Refuse processes that see other images: other names, classes, splits, metadata or sizes of files.

    Raises:
        DataError: names the rank, and the first image that is different.
    """
    if ranks.alone:
        return
    rows = [(*row, _bytes_of(index, row[0])) for row in index.rows()]
    text = repr((index.class_names, rows))
    digest = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    each = ranks.of_each(digest)
    if len(set(each)) == 1:
        return
    theirs = {row[0]: row for row in ranks.of_first(rows)}
    ours = {row[0]: row for row in rows}
    names = (name for name in [*theirs, *ours] if theirs.get(name) != ours.get(name))
    found = ranks.of_each(next(names, "the order or the classes"))
    rank = next(rank for rank, one in enumerate(each) if one != each[0])
    raise DataError(
        f"rank {rank} sees other data than rank 0: first {printable(str(found[rank]))}.\n"
        "All machines need the same files below data.path: a file system that they share, or equal copies."
    )


def _bytes_of(index: ImageIndex, name: str) -> int | None:
    """Return the size of the file of an image; None if there is none to be seen."""
    if index.root is None:
        return None
    (found,) = sizes_and_times(str(index.root), [name])
    return None if found is None else found[0]
