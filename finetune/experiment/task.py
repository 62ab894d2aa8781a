"""What is asked of each image, one class or several, and what follows from it where a config says `auto`."""

from dataclasses import dataclass

from finetune.choices import LossSetting, Monitor, MonitorSetting
from finetune.errors import ConfigError
from finetune.text import printable


@dataclass(frozen=True)
class Task:
    """One class for each image, or several."""

    multilabel: bool
    """whether an image may have several classes, or none"""
    data: str
    """where the images are from"""

    def loss(self, name: LossSetting) -> LossSetting:
        """Decide which loss is trained.

        Raises:
            ConfigError: a loss that the images do not go with.
        """
        if name == "cross_entropy" and self.multilabel:
            raise ConfigError(
                f"loss.name: cross_entropy is for images of one class, and those of {printable(self.data)} "
                "may have several; write binary_cross_entropy, focal or auto."
            )
        if name == "binary_cross_entropy" and not self.multilabel:
            raise ConfigError(
                "loss.name: binary_cross_entropy is for images that may have several classes, and those of "
                f"{printable(self.data)} have one; write cross_entropy, focal or auto, or name what "
                "separates classes in data.label_separator."
            )
        if name == "auto":
            return "binary_cross_entropy" if self.multilabel else "cross_entropy"
        return name

    def monitor(self, monitor: MonitorSetting) -> Monitor:
        """Decide by which score the best epoch is chosen."""
        if monitor == "auto":
            return "val_map" if self.multilabel else "val_accuracy"
        return monitor

    def check_balance(self, balance: str) -> None:
        """Refuse a balance that the images do not go with.

        Raises:
            ConfigError: a sampler, where an image is of several classes at once.
        """
        if balance == "sampler" and self.multilabel:
            raise ConfigError(
                f"data.balance: sampler shows images by their class, and those of {printable(self.data)} may "
                "have several; write loss, or none."
            )


def resolved(monitor: MonitorSetting) -> Monitor:
    """Return the monitor of a config in which nothing is `auto` any more."""
    assert monitor != "auto"
    return monitor
