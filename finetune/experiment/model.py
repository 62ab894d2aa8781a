"""Build the model that a config describes, with the weights that it names."""

from os.path import isdir

from finetune.config.config import Config
from finetune.config.sections import HeadConfig
from finetune.data.index import ImageIndex
from finetune.data.metadata import Metadata
from finetune.errors import ConfigError, RunError, WeightsError
from finetune.experiment.capacity import check_head
from finetune.model import (
    HeadSpec,
    ImageClassifier,
    ModelSpec,
    Weights,
    build_classifier,
    find_architecture,
    pending_download,
)
from finetune.model.backbone import check_stage_size
from finetune.model.download import Say
from finetune.model.head import MetadataInputs, embedding_width
from finetune.runs import MODEL
from finetune.runs.trained_model import load_run_weights
from finetune.text import expanded


def build_model(config: Config, index: ImageIndex, *, say: Say | None = None) -> ImageClassifier:
    """Build the model that a config describes for some data, with its pretrained weights, in float32."""
    check_head(config, len(index.class_names))
    head = config.model.head
    spec = ModelSpec(
        arch=config.model.arch,
        classes=len(index.class_names),
        image_size=config.data.image_size,
        head=HeadSpec(
            hidden=head.hidden,
            dropout=head.dropouts,
            pool=head.pool,
            metadata=MetadataInputs() if index.metadata is None else metadata_inputs(head, index.metadata),
        ),
        layer_groups=config.model.layer_groups,
        memory_format=config.memory_format,
    )
    weights = find_weights(config.model.weights, config.model.arch)
    _check_sizes_before_download(config, weights)
    model = build_classifier(spec, weights=weights, seed=config.seed, say=say)
    check_stage_sizes(config, model.preprocessing.image_size)
    return model


def _check_sizes_before_download(config: Config, weights: str | Weights) -> None:
    """Refuse sizes of stages while nothing has been fetched yet, if something has to be."""
    if isinstance(weights, str) and any(stage.image_size for stage in config.stages):
        download = pending_download(weights, find_architecture(config.model.arch))
        if download is not None:
            check_stage_sizes(config, config.data.image_size or download.image_size)


def check_stage_sizes(config: Config, built_for: int) -> None:
    """Refuse sizes of stages that the network cannot take, built for images of `built_for` pixels.

    Raises:
        ConfigError: says which, and why.
    """
    arch = find_architecture(config.model.arch)
    for stage in config.stages:
        if stage.image_size is not None:
            key = f"stages.{stage.name}.image_size"
            check_stage_size(arch, built_for, stage.image_size, key=key)


def find_weights(name: str, arch: str) -> str | Weights:
    """Return the weights of an earlier run where `model.weights` is its folder; any other name as it is.

    Raises:
        WeightsError: a folder that is not a run's.
        ConfigError: a run of another architecture.
        CheckpointError: a run whose files are damaged or were changed.
    """
    folder = expanded(name)
    if name in ("default", "none") or name.startswith("builtin:") or not isdir(folder):
        return name
    try:
        weights = load_run_weights(folder)
    except RunError:
        raise WeightsError(f"model.weights: {folder} is not a run folder: it has no {MODEL}.") from None
    if weights.arch != arch:
        raise ConfigError(
            f"model.weights: the run {folder} trained {weights.arch}, not {arch}; "
            f"set model.arch: {weights.arch}."
        )
    return weights


def metadata_inputs(head: HeadConfig, metadata: Metadata) -> MetadataInputs:
    """Return what the head takes beside the features.

    Raises:
        ConfigError: the width of an embedding that there is not.
    """
    widths = head.embedding_width
    names = [column.name for column in metadata.categories]
    unknown = [name for name in widths if name not in names] if isinstance(widths, dict) else []
    if unknown:
        raise ConfigError(
            f"model.head.embedding_width: {unknown[0]!r} is no metadata column of categories; those are "
            f"{', '.join(map(repr, names)) or 'none'}."
        )
    embeddings = []
    for column in metadata.categories:
        width = widths.get(column.name) if isinstance(widths, dict) else widths
        embeddings.append((column.size, width or embedding_width(column.size)))
    return MetadataInputs(tuple(embeddings), len(metadata.numbers), head.metadata_dropout)
