"""What a model is made of, as plain values: enough to build it, and enough to build it again."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self, get_args

from finetune.choices import HeadPool, MemoryFormat, Precision
from finetune.errors import CheckpointError
from finetune.model.head import MetadataInputs
from finetune.model.preprocessing import Preprocessing


@dataclass(frozen=True)
class HeadSpec:
    """The new layers that replace the classifier; see `finetune.model.head.Head`."""

    hidden: tuple[int, ...] = (512,)
    dropout: float | tuple[float, ...] | None = None
    pool: HeadPool = "avg+max"
    metadata: MetadataInputs = MetadataInputs()  # noqa: RUF009  (frozen)
    """What it takes beside the features."""


@dataclass(frozen=True)
class ModelSpec:
    """A whole model without its weights; `model.json` stores the `spec` of an `ImageClassifier`."""

    arch: str
    """torchvision's name of the architecture."""
    classes: int
    """Number of logits."""
    head: HeadSpec = field(default_factory=HeadSpec)
    layer_groups: int = 3
    """Number of parts with a learning rate of their own, the head included."""
    image_size: int | None = None
    """Side of the images in pixels; None takes the size that the weights were made for."""
    precision: Precision = "float32"
    """What the backbone computes in; the head and the logits are always float32."""
    memory_format: MemoryFormat = "channels_last"
    preprocessing: Preprocessing | None = None
    """How images enter the model. It comes with the weights; None until they are found."""
    transform_input: bool = False
    """Whether GoogLeNet or Inception rescale their input, which also comes with the weights."""

    def resolved(self, preprocessing: Preprocessing, *, transform_input: bool) -> Self:
        """Fill in what came with the weights; an image size of the config prevails."""
        if self.image_size is not None:
            preprocessing = preprocessing.scaled_to(self.image_size)
        return replace(
            self,
            image_size=preprocessing.image_size,
            preprocessing=preprocessing,
            transform_input=transform_input,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        metadata = asdict(self.head.metadata) | {"embeddings": [*map(list, self.head.metadata.embeddings)]}
        head = asdict(self.head) | {"hidden": list(self.head.hidden), "metadata": metadata}
        if isinstance(self.head.dropout, tuple):
            head["dropout"] = list(self.head.dropout)
        preprocessing = None if self.preprocessing is None else self.preprocessing.to_dict()
        return asdict(self) | {"head": head, "preprocessing": preprocessing}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Read what `to_dict` gave of a complete model.

        Raises:
            CheckpointError: a field is missing, unknown, or of the wrong kind.
        """
        _check_names(fields, cls, "model")
        _check_names(fields["head"], HeadSpec, "model.head")
        _check_names(fields["head"]["metadata"], MetadataInputs, "model.head.metadata")
        head, dropout = fields["head"], fields["head"]["dropout"]
        metadata = head["metadata"]
        spec = cls(
            **{
                **fields,
                "head": HeadSpec(
                    hidden=tuple(head["hidden"]),
                    dropout=tuple(dropout) if isinstance(dropout, list) else dropout,
                    pool=head["pool"],
                    metadata=MetadataInputs(
                        embeddings=tuple((rows, width) for rows, width in metadata["embeddings"]),
                        numbers=metadata["numbers"],
                        dropout=metadata["dropout"],
                    ),
                ),
                "preprocessing": Preprocessing.from_dict(fields["preprocessing"]),
            }
        )
        _check_values(spec)
        return spec


def _check_names(fields: Any, record: type, where: str) -> None:
    """Refuse anything but a JSON object with exactly the fields of a record."""
    wanted = set(record.__dataclass_fields__)  # type: ignore[attr-defined]
    given = set(fields) if isinstance(fields, Mapping) else set()
    if given != wanted:
        wrong = ", ".join(sorted(given ^ wanted))
        raise CheckpointError(f"{where}: fields that are missing or unknown: {wrong}.")


def _check_values(spec: ModelSpec) -> None:
    metadata = spec.head.metadata
    expected = {
        "arch": isinstance(spec.arch, str),
        "classes": _is_count(spec.classes),
        "layer_groups": _is_count(spec.layer_groups),
        "image_size": spec.preprocessing is not None and spec.image_size == spec.preprocessing.image_size,
        "precision": spec.precision in get_args(Precision),
        "memory_format": spec.memory_format in get_args(MemoryFormat),
        "transform_input": isinstance(spec.transform_input, bool),
        "head.hidden": all(map(_is_count, spec.head.hidden)),
        "head.pool": spec.head.pool in get_args(HeadPool),
        "head.metadata.embeddings": all(_is_count(n) for pair in metadata.embeddings for n in pair),
        "head.metadata.numbers": metadata.numbers == 0 or _is_count(metadata.numbers),
        "head.metadata.dropout": isinstance(metadata.dropout, float) and 0 <= metadata.dropout < 1,
    }
    wrong = [name for name, fits in expected.items() if not fits]
    if wrong:
        raise CheckpointError(f"model: values that cannot be: {', '.join(wrong)}.")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
