"""What is known of an architecture without building it."""

from dataclasses import dataclass

TIMM = "timm:"
"""How the names of timm's architectures begin; those of torchvision stand alone."""


@dataclass(frozen=True)
class Architecture:
    """A network that can be named in a config."""

    name: str
    """As `model.arch` has it, such as `resnet34` or `timm:tf_efficientnet_lite0`."""
    family: str
    """The module of torchvision or timm it comes from, such as `resnet` or `vision_transformer`."""
    parameters: int | None
    """Number of parameters with the classifier its weights come with; None where they were not counted."""
    image_size: int
    """Side in pixels of the square images its default weights were evaluated with."""
    weights: tuple[str, ...]
    """Names of the pretrained weights, such as `IMAGENET1K_V1`; the default one comes first."""
    download_mb: float | None
    """Size of the file of the default weights, in MB; None where it is not known."""

    @property
    def of_timm(self) -> bool:
        """Whether timm builds it, instead of torchvision."""
        return self.name.startswith(TIMM)

    @property
    def own_name(self) -> str:
        """The name that its library has for it."""
        return self.name.removeprefix(TIMM)
