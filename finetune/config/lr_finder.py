"""The config's section on the search for a learning rate."""

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from finetune.config.installed_names import PickSetting
from finetune.config.sections import Section


class LrFinderConfig(Section):
    """How a learning rate is found, by `finetune lr-find` and for `lr: auto`."""

    pick: PickSetting = "race"
    """Which suggestion is picked: `race` trains briefly at each of them and lets the validation images
    decide; `knee`, `steepest`, `minimum`, `slide` and `valley` read it from the curve of the range test
    alone, see docs/lr-find.md; so does the heuristic of an installed package (docs/extending.md)."""

    start: Annotated[float, Field(ge=1e-12, le=1e5)] = 1e-7
    """First and lowest rate of the range test."""

    end: Annotated[float, Field(ge=1e-11, le=1e6)] = Field(10.0, validate_default=True)
    """Last and highest rate of the range test, at least ten times `start`; it ends earlier when the loss
    explodes."""

    steps: Annotated[int, Field(ge=20, le=100_000)] = 100
    """Steps of the range test, one for each rate."""

    stop: Annotated[float, Field(gt=1, le=1e12)] = 3.0
    """The range test ends when the loss is above this many times the loss it began with."""

    smoothing: Annotated[float, Field(ge=0, le=1000)] = 3.0
    """Width of the kernel that smooths the curve: the standard deviation of a Gaussian, in steps."""

    repeats: Annotated[int, Field(ge=1, le=100)] = 1
    """How many range tests are made, each over other batches; the suggestions are read from their mean,
    and the table says how far they are apart."""

    race_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    """Steps that each rate in the race trains for; never more than the stage itself has."""

    @field_validator("end")
    @classmethod
    def _range_goes_up(cls, end: float, info: ValidationInfo) -> float:
        start = info.data.get("start")
        if start is not None and end < 10 * start:
            raise ValueError(
                f"expected at least ten times lr_finder.start, which is {start:g}; by itself it is 10"
            )
        return end
