"""What `finetune auto` chooses, and the config that says so."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from finetune.commands.init import batch_size_for, column_lines, given_lines, label_line
from finetune.commands.survey import Survey
from finetune.config.config import Config
from finetune.config.load import parse_config
from finetune.config.yaml_writer import write_value

FROZEN_EPOCHS = 30
MOST_EPOCHS = 4
"""of everything, where there is time for them; the schedule that won on photographs (docs/recipe.md)"""
USUAL_RATE = 3e-3
USUAL_BATCH = 32
_FEW_IMAGES = 4 * USUAL_BATCH


@dataclass(frozen=True)
class Choices:
    """What has been chosen so far."""

    arch: str = "resnet34"
    weights: str = "default"
    image_size: int = 128
    batch_size: int = USUAL_BATCH
    epochs: int = MOST_EPOCHS
    """of the unfrozen stage; 0 leaves it out"""
    lr: float = USUAL_RATE
    """peak rate of the frozen stage"""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """why, by the name of the choice"""

    def to_dict(self) -> dict[str, object]:
        """Return the choices as `auto --json` documents them, beside what `train --json` has."""
        names = ("arch", "weights", "image_size", "batch_size", "lr")
        return {name: getattr(self, name) for name in names} | {"unfrozen_epochs": self.epochs}


def first_choices(survey: Survey) -> Choices:
    """Return what is assumed before anything is measured."""
    few = survey.n_train < _FEW_IMAGES
    return Choices(batch_size=min(USUAL_BATCH, batch_size_for(survey.n_train)) if few else USUAL_BATCH)


def config_of(data: Path, survey: Survey, choices: Choices) -> Config:
    """Return the config of some choices, as its text would be read.

    Raises:
        ConfigError: the name of the data cannot be written.
    """
    return parse_config(config_text(data, "", survey, choices), f"the config for {data}")


def config_text(data: Path, target: str, survey: Survey, choices: Choices) -> str:
    """Write the config of some choices, with the reason of each."""
    why = {name: f"# {reason}" for name, reason in choices.reasons.items()}

    def line(text: str, choice: str = "") -> str:
        return f"{text:<45} {why.get(choice, '')}".rstrip()

    head = f"name: frozen, train: head, epochs: {FROZEN_EPOCHS}, lr: {write_value(choices.lr)}, views: eval"
    stages = [f"  - {{{head}}}"]
    if choices.epochs:
        rate = "slice(3e-5, 3e-4)"
        stages.append(f'  - {{name: unfrozen, train: all, epochs: {choices.epochs}, lr: "{rate}"}}')
    lines = [
        f"# {survey}. Written by finetune auto; every value that it chose is here.",
        f"# Train it again, to the same bits:  finetune train {write_value(target)}",
        "",
        "seed: 42",
        "data:",
        f"  path: {write_value(str(data))}",
        f"  val: {write_value(survey.val)}",
        *(given_lines(survey) + label_line(survey) + column_lines(survey)).splitlines(),
        line(f"  batch_size: {choices.batch_size}", "batch_size"),
        "  augment: standard",
        line(f"  image_size: {choices.image_size}", "image_size"),
        "model:",
        line(f"  arch: {write_value(choices.arch)}", "arch"),
        f"  weights: {write_value(choices.weights)}",
        "stages:",
        *(f"  {why[name]}" for name in ("lr", "epochs") if name in why),
        *stages,
    ]
    return "\n".join(lines) + "\n"
