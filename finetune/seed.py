"""The only source of randomness: every draw is a function of the seed and of where it happens.

Nothing random depends on history. The order of an epoch, the augmentation of an image, the dropout of a
batch and the initial weights are each drawn from a generator seeded by `derive(seed, what, *where)`. So no
generator state has to be saved, skipping batches costs nothing, and the number of loader workers cannot
change a result.

torch is imported where it draws: what only derives a seed, such as a split, works without it.
"""

import hashlib
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(seed: int, purpose: str, *position: int | str) -> int:
    """Return the 63-bit seed of one random event.

    Args:
        seed: the seed of the experiment, as written in the config.
        purpose: what is drawn: "order", "augment", "mix", "dropout", "init", "split".
        position: where it is drawn, for instance stage, epoch and image index.
    """
    text = "\0".join(map(str, (seed, purpose, *position)))
    digest = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def derive_each(seed: int, purpose: str, names: Iterable[str]) -> list[int]:
    """Return `derive(seed, purpose, name)` for each name, of very many in a third of the time.

    The parts of a longer position are put together with a NUL between them, in `purpose` or in the names.
    """
    begun = hashlib.blake2b(f"{seed}\0{purpose}\0".encode(), digest_size=8).copy
    digests = []
    for name in names:
        digest = begun()
        digest.update(name.encode("utf-8", "surrogateescape"))
        digests.append(digest.digest())
    return [number >> 1 for number in struct.unpack(f">{len(digests)}Q", b"".join(digests))]


def permutation(n: int, seed: int) -> list[int]:
    """Return the numbers 0 … n − 1 in the order that belongs to `seed` (a result of `derive`)."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    order: list[int] = torch.randperm(n, generator=generator).tolist()
    return order


def seed_for(seed: int, device: "torch.device") -> None:
    """Seed the generators of the CPU and of the device in use, just before something that draws from them.

    Not `torch.manual_seed`, which asks every kind of device: 0.1 ms and more at each step.
    """
    import torch

    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        number = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[number].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


@contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Let torch's generator of the CPU draw from a seed inside, and go on after it as if nothing was drawn.

    Not `torch.manual_seed` in `fork_rng`: that also reseeds every GPU, and takes 90 times as long.
    """
    import torch

    state = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(state)
