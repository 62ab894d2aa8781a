"""Features of image files that earlier runs have computed: of which files, and what else they depend on."""

import hashlib
import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import features as pillow
from torch import Tensor, nn

from finetune.data.images import ImageLimits
from finetune.data.index import Sample
from finetune.data.quality.content_digests import ContentDigests
from finetune.experiment.build import Experiment
from finetune.machine.cache import FEATURES, cache_folder, most_feature_bytes
from finetune.machine.provenance import code_digest, library_versions, processor
from finetune.model import ImageClassifier
from finetune.model.preprocessing import Preprocessing
from finetune.training.feature_store import FeatureStore, StoredRows, row_key

_FORMAT = 1  # of the store
_CODE = ("model", "data/images", "data/loading")  # what makes features out of files
_LIBRARIES = ("torch", "torchvision", "timm", "pillow", "numpy")
# Variables by which libraries are told to compute in another way.
_STEERING = ("ATEN_", "CUBLAS_", "CUDNN_", "DNNL_", "MKL_", "NVIDIA_TF32", "ONEDNN_", "TORCH_ALLOW_TF32")


class FileFeatures:
    """The features of the evaluation view of some image files, in a store."""

    def __init__(
        self, rows: StoredRows, root: Path, names: Sequence[str], batch_sizes: Sequence[int]
    ) -> None:
        """Look at the files; `batch_sizes` are those of the batches that they are computed in."""
        self._rows, self._names, self._digests = rows, names, ContentDigests(root)
        self._contents = self._digests.take(names)
        self._keys = [
            None if content is None else row_key("eval", content.digest, size)
            for content, size in zip(self._contents, batch_sizes, strict=True)
        ]

    def known(self) -> dict[int, Tensor]:
        """Return the features (D,) that there are, by position."""
        rows = {n: self._rows.get(key) for n, key in enumerate(self._keys) if key is not None}
        return {position: row for position, row in rows.items() if row is not None}

    def add(self, positions: Sequence[int], features: Tensor) -> None:
        """Take in features (n, D), but not of files that have changed since they were looked at."""
        keys, kept = [], []
        for number, position in enumerate(positions):
            content, key = self._contents[position], self._keys[position]
            if content is None or key is None or not self._digests.still(self._names[position], content):
                continue
            keys.append(key)
            kept.append(number)
        self._rows.add(keys, features[kept])

    def save(self) -> None:
        """Write what was taken in."""
        self._rows.save()


def file_features(
    experiment: Experiment, samples: Sequence[Sample], preprocessing: Preprocessing, sizes: Sequence[int]
) -> FileFeatures | None:
    """Return what the store has of some images; None where there is no store, or no files.

    Args:
        experiment: the model as it is now.
        samples: the images.
        preprocessing: what makes their evaluation view.
        sizes: for each image, how many are computed in its batch.

    Raises:
        ConfigError: the environment variable of the store's size holds none.
    """
    root, most_bytes = experiment.index.root, most_feature_bytes()
    if root is None or most_bytes == 0:
        return None
    store = FeatureStore(cache_folder() / FEATURES, most_bytes)
    namespace = namespace_of(experiment.model, preprocessing, experiment.limits)
    about = f"{experiment.model.spec.arch}, {preprocessing.image_size} px, {experiment.model.spec.precision}"
    rows = store.rows(namespace, about)
    return FileFeatures(rows, root, [sample.name for sample in samples], sizes)


def namespace_of(model: ImageClassifier, preprocessing: Preprocessing, limits: ImageLimits) -> str:
    """Return the digest of everything beside the image that the bits of features depend on."""
    parts = {
        "format": _FORMAT,
        "code": code_digest(*_CODE),
        "weights": _weights_digest(model.backbone),
        "network": [model.spec.arch, model.spec.transform_input, repr(model.backbone)],
        "pool": model.head.pool,
        "precision": model.spec.precision,
        "memory_format": model.spec.memory_format,
        "preprocessing": preprocessing.to_dict(),
        "normalisation": model.preprocessing.to_dict(),
        "limits": repr(limits),
        "machine": _machine(next(model.backbone.parameters()).device),
    }
    text = json.dumps(parts, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _weights_digest(backbone: nn.Module) -> str:
    """Return the digest of every parameter and buffer, with its name and type."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in [*backbone.named_parameters(), *backbone.named_buffers()]:
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _machine(device: torch.device) -> dict[str, object]:
    """Return what decides how a network is computed: libraries, processor, threads, settings."""
    found: dict[str, object] = dict(library_versions(*_LIBRARIES))
    found |= {
        "jpeg": pillow.version("libjpeg_turbo") or pillow.version("jpg"),
        "device": device.type,
        "processor": processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "float32": _matmul_precision(),
        "mkldnn": torch.backends.mkldnn.enabled,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "variables": {name: value for name, value in os.environ.items() if name.startswith(_STEERING)},
    }
    if device.type == "cuda":
        found |= {
            "gpu": torch.cuda.get_device_name(device),
            "cuda": torch.version.cuda,
            "cudnn version": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "tf32": [
                torch.backends.cuda.matmul.fp32_precision,
                torch.backends.cudnn.conv.fp32_precision,  # type: ignore[attr-defined]
            ],
            "cudnn": [torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic],
        }
    return found


def _matmul_precision() -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch 2.9 warns that there is a newer way to ask
        return torch.get_float32_matmul_precision()
