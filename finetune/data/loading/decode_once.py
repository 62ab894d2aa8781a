"""Decode images once, before the first pass over them.

What is kept is what the decoder hands to the augmentation, upright RGB at the size that it needs, to the last
bit; where an image is always shown in the same way, what the network sees.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional

from finetune.data.images import ImageError
from finetune.data.index import load_sample
from finetune.data.loading.dataset import EvalImages, TrainImages
from finetune.data.loading.decoded import DecodedImages
from finetune.data.loading.decoded_store import Block, make_block
from finetune.data.loading.transforms import Transform
from finetune.data.loading.workers import one_thread
from finetune.machine.cores import usable_cores
from finetune.progress import Bar

_BLOCK = 32 << 20  # bytes of pixels that are written at once
_MOST_SECONDS = 30.0  # of decoding that a process that is killed may lose
_MOST_THREADS = 16

Images = TrainImages | EvalImages

Keep = Callable[[Block], Block | None]
"""Keeps a block; returns it as it is to be read from now on, or None where there is no room."""


def sizes_of(images: Images, positions: Sequence[int]) -> list[int]:
    """Return the bytes that some images would take."""
    return [image.numel() for _, image in _decode(images, positions) if image is not None]


def decode_missing(images: Images, decoded: DecodedImages, keep: Keep, bar: Bar) -> bool:
    """Decode what is missing, on all cores; false where not all of it could be kept.

    An image that cannot be read is left out here: whoever asks for it reads it, and says what is wrong.
    """
    pending = _Pending(decoded, keep)
    try:
        for position, image in _decode(images, decoded.missing()):
            bar.advance_by(1)
            if image is not None and decoded.is_unchanged(position):
                pending.add(position, image)
            if pending.is_much and not pending.save():
                return False
    finally:
        done = pending.save()  # also after Ctrl-C
    return done


class _Pending:
    """Images that are decoded, and not kept yet."""

    def __init__(self, decoded: DecodedImages, keep: Keep) -> None:
        self._decoded, self._keep, self._positions = decoded, keep, decoded.keys()
        self._names = {position: key for key, position in self._positions.items()}
        self._clear()

    def _clear(self) -> None:
        self._keys: list[bytes] = []
        self._images: list[Tensor] = []
        self._bytes, self._saved = 0, time.monotonic()

    def add(self, position: int, image: Tensor) -> None:
        """Take in an image."""
        self._keys.append(self._names[position])
        self._images.append(image)
        self._bytes += image.numel()

    @property
    def is_much(self) -> bool:
        """Whether it is time to save them."""
        return self._bytes > _BLOCK or (self._bytes > 0 and time.monotonic() - self._saved > _MOST_SECONDS)

    def save(self) -> bool:
        """Have them kept; false if there is no room for them."""
        if not self._keys:
            return True
        kept = self._keep(make_block(self._keys, self._images))
        self._clear()
        if kept is not None:
            self._decoded.take_in(kept, self._positions)
        return kept is not None


def _decode(images: Images, positions: Sequence[int]) -> Iterator[tuple[int, Tensor | None]]:
    """Return what is kept of each image, in order, a few images ahead: a large one takes much memory."""
    threads = min(usable_cores(), _MOST_THREADS)
    waiting: deque[tuple[int, Future[Image.Image | None]]] = deque()
    with one_thread(), ThreadPoolExecutor(threads) as executor:
        for position in [*positions, *[None] * threads]:
            if len(waiting) == threads or (position is None and waiting):
                earlier, future = waiting.popleft()
                loaded = future.result()
                yield earlier, None if loaded is None else _keep(images.transform, loaded)
            if position is not None:
                waiting.append((position, executor.submit(_load, images, position)))


def _load(images: Images, position: int) -> Image.Image | None:
    """Return an image as the decoder gives it; None where it cannot be read."""
    shrink_to = images.transform.shrink_to
    try:
        return load_sample(images.index, images.samples[position], images.limits, shrink_to=shrink_to)
    except ImageError:
        return None


def _keep(transform: Transform, image: Image.Image) -> Tensor:
    """Return what is kept of an image (3, H, W)."""
    pixels: Tensor = transform(image) if transform.fixed else functional.pil_to_tensor(image)
    return pixels
