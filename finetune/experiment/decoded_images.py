"""Decide which images of a training are decoded once, and decode them before the first pass over them."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from weakref import WeakSet

from PIL import features as pillow

from finetune.choices import Cache
from finetune.data.loading.dataset import EvalImages, TrainImages
from finetune.data.loading.decode_once import Images, decode_missing, sizes_of
from finetune.data.loading.decoded import DecodedImages, find_decoded
from finetune.data.loading.decoded_store import Block, DecodedStore
from finetune.data.loading.workers import memory_to_hand_over
from finetune.experiment.build import Experiment, loader_workers
from finetune.experiment.features import caches_features, view_count
from finetune.experiment.loaders import how_shown
from finetune.machine.cache import (
    DECODED,
    DECODED_VARIABLE,
    cache_folder,
    cached_files,
    most_decoded_bytes,
)
from finetune.machine.hardware import usable_memory
from finetune.machine.provenance import code_digest, library_versions, processor
from finetune.notes import Note
from finetune.progress import NewBar, no_bar
from finetune.text import printable, shown_size
from finetune.training.events import Loaders

_FORMAT = 1  # of the store
_CODE = ("data/images", "data/loading")  # what makes pixels out of files
_LIBRARIES = ("torch", "torchvision", "pillow", "pillow-heif", "numpy")

_WORTH = 3  # passes: fewer would take longer with one more that decodes for all
_LOOKED_AT = 16  # images by which the size of all is estimated
_PART_FOR_AUTO, _PART = 4, 2  # of the memory, and of the free disk: one part of so many

Split = Literal["train", "val"]


class DecodedCache:
    """The images of a training that are decoded once."""

    def __init__(self, experiment: Experiment) -> None:
        """Look at what room there is.

        Raises:
            ConfigError: an environment variable holds no size.
        """
        self._experiment, self._setting = experiment, experiment.config.data.cache
        in_memory = self._setting == "memory"
        self._decided = WeakSet[Images]()
        self._failed = False
        self._room: _Disk | _Memory = _Memory(experiment) if in_memory else _Disk(self._setting)

    def of_stage(self, number: int, epoch: int, loaders: Loaders, new_bar: NewBar = no_bar) -> list[Note]:
        """Let the loaders of a stage find decoded images, and decode those for which it is worth it.

        Args:
            number: the stage, counted from 0.
            epoch: how many epochs of it are over.
            loaders: of its images; no worker of theirs has started, if it did not find any before.
            new_bar: shows how far it is.
        """
        nowhere = self._setting == "auto" and self._room.bytes_for_auto == 0
        if self._setting == "off" or nowhere or self._experiment.index.root is None:
            return []
        kept, notes = list[str](), list[Note]()
        # Those for validation first: they take less room, and once decoded nothing else is left to do.
        datasets: dict[Split, object] = {"val": loaders.val.dataset, "train": loaders.train.dataset}
        for split, images in datasets.items():
            assert isinstance(images, TrainImages | EvalImages)
            passes = self._passes(split, number, epoch)
            if passes == 0 or images in self._decided:
                continue
            self._decided.add(images)
            if self._setting == "auto" and not self._room.has(images):  # not even to ask for times of files
                refusal = [] if passes < _WORTH else self._too_large(split, images, range(len(images)))
                if passes < _WORTH or refusal:
                    notes += refusal
                    continue
            decoded = images.decoded = DecodedImages(self._experiment.index.root, images.samples)
            before = self._room.find(images, decoded)
            notes += self._decode(split, images, passes, new_bar)
            if decoded.count:
                reused = f", {before:,} of them before" if before else ""
                kept.append(f"{decoded.count:,} {split} ({shown_size(decoded.bytes)}{reused})")
        line = f"images: decoded once and kept {self._room.place}: {', '.join(reversed(kept))}"
        return [Note(line), *notes] if kept else notes

    def _decode(self, split: Split, images: Images, passes: int, new_bar: NewBar) -> list[Note]:
        """Decode what is missing, if it is worth it and fits; say why not all of it is kept."""
        decoded, auto = images.decoded, self._setting == "auto"
        assert decoded is not None
        missing = decoded.missing()
        if not missing or self._failed or (auto and passes < _WORTH):
            return []
        if auto and (refusal := self._too_large(split, images, missing)):
            return refusal
        with new_bar(f"decoding {split}", len(missing)) as bar:
            if decode_missing(images, decoded, self._room.keeper(images), bar):
                return []
        self._failed = True
        left = f"each pass decodes {len(decoded.missing()):,} of {len(images):,} {split}"
        more = ", and those of later stages" if split == "train" else ", and all that train"
        return [Note(f"images: {self._room.why_not()}; {left}{more}", warning=not auto)]

    def _too_large(self, split: Split, images: Images, missing: Sequence[int]) -> list[Note]:
        """Say that some images would take more room than `auto` takes; nothing if they do not."""
        sizes = sizes_of(images, missing[:: max(1, len(missing) // _LOOKED_AT)])
        needed = sum(sizes) * len(missing) // max(1, len(sizes))
        if needed <= (room := self._room.bytes_for_auto):
            return []
        what = f"images: {len(missing):,} {split} would take {shown_size(needed)} decoded"
        return [Note(f"{what}, more than {shown_size(room)}; each pass decodes them (data.cache)")]

    def _passes(self, split: Split, number: int, epoch: int) -> int:
        """Count how often the images of a stage are gone through, in it and in later ones; 0 if not in it."""
        experiment, stages = self._experiment, self._experiment.config.stages
        shown, passes = how_shown(experiment, stages[number]), []
        for stage in stages[number:]:
            if split == "train" and how_shown(experiment, stage) != shown:
                continue
            if not caches_features(experiment, stage):
                passes.append(stage.epochs)
            else:  # what the features of validation images are computed from is read by another loader
                passes.append(view_count(stage) if split == "train" and stage.views != "eval" else 0)
        return 0 if passes[0] == 0 else sum(passes) - epoch


class _Disk:
    """The cache folder as a place for decoded images."""

    place = "on disk"

    def __init__(self, setting: Cache) -> None:
        folder = cache_folder() / DECODED
        part = _PART_FOR_AUTO if setting == "auto" else _PART
        there = sum(file.bytes for file in cached_files(folder))
        self._store = DecodedStore(folder, min(most_decoded_bytes(), there + _free(folder) // part))

    @property
    def bytes_for_auto(self) -> int:
        """How much `auto` may keep: it is read from the memory in which the system holds it."""
        memory = usable_memory()
        room = max(0, self._store.room)
        return room if memory is None else min(room, memory // _PART_FOR_AUTO)

    def has(self, images: Images) -> bool:
        """Tell whether there is something to find."""
        return (self._store.folder / _namespace(images)).exists()

    def find(self, images: Images, decoded: DecodedImages) -> int:
        """Find what earlier runs have decoded; return how many images."""
        find_decoded(decoded, self._store, _namespace(images))
        return decoded.count

    def keeper(self, images: Images) -> "_Kept":
        """Return what writes blocks."""
        root = images.index.root
        assert root is not None
        how = "as evaluation shows them" if images.transform.fixed else f"{images.transform.shrink_to} px"
        return _Kept(self._store, _namespace(images), f"{printable(root.name)}, {how}")

    def why_not(self) -> str:
        """Say why something could not be kept."""
        if self._store.is_full:
            return (
                f"more than {shown_size(self._store.most_bytes)} are not kept ({DECODED_VARIABLE}, free disk)"
            )
        return f"{printable(str(self._store.folder))} cannot be written, or its disk is full"


@dataclass(frozen=True)
class _Kept:
    """Writes blocks into a namespace of a store."""

    store: DecodedStore
    namespace: str
    about: str

    def __call__(self, block: Block) -> Block | None:
        written = self.store.write(self.namespace, block, self.about)
        if written is not None:
            self.store.use(written)
        return written


class _Memory:
    """The memory of this process as a place for decoded images."""

    place = "in memory"
    bytes_for_auto = 0  # it never takes memory

    def __init__(self, experiment: Experiment) -> None:
        usable = usable_memory()
        self._most = None if usable is None else usable // _PART
        if loader_workers(experiment) and (shared := memory_to_hand_over()) is not None:
            self._most = shared if self._most is None else min(self._most, shared)
        self._bytes = 0

    def has(self, images: Images) -> bool:
        """Tell that there is nothing to find: no other run has this memory."""
        return False

    def find(self, images: Images, decoded: DecodedImages) -> int:
        """Find nothing."""
        return 0

    def keeper(self, images: Images) -> "_Memory":
        """Return what holds blocks."""
        return self

    def __call__(self, block: Block) -> Block | None:
        """Hold a block, if there is room."""
        if self._most is not None and self._bytes + block.pixels.nbytes > self._most:
            return None
        self._bytes += block.pixels.nbytes
        return block

    def why_not(self) -> str:
        """Say why something could not be kept."""
        assert self._most is not None
        return f"there is room for {shown_size(self._most)} in memory that loader processes share"


def _namespace(images: Images) -> str:
    """Return the digest of everything beside the files that the kept pixels depend on."""
    root = images.index.root
    assert root is not None
    parts = {
        "format": _FORMAT,
        "root": os.path.realpath(root),
        "code": code_digest(*_CODE),
        "libraries": library_versions(*_LIBRARIES),
        "jpeg": pillow.version("libjpeg_turbo") or pillow.version("jpg"),
        "processor": processor(),
        "limits": repr(images.limits),
        "shrink_to": images.transform.shrink_to,
        "steps": repr(images.transform.steps) if images.transform.fixed else "",
    }
    text = json.dumps(parts, sort_keys=True)
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def _free(folder: Path) -> int:
    """Return the bytes that are free where a folder is, or will be."""
    for there in (folder, *folder.parents):
        try:
            return shutil.disk_usage(there).free
        except FileNotFoundError:
            continue
        except OSError:
            break
    return 0
