"""The words of a sweep file: a base config, the space of keys to search, and how to search it."""

from typing import Annotated, Any

from pydantic import Field

from finetune.choices import EngineName, PrunerName, SamplerName, StudyStorage
from finetune.config.installed_names import MonitorSetting
from finetune.config.sections import Section
from finetune.config.values import Text


class SamplerConfig(Section):
    """How the values of a trial are chosen."""

    name: SamplerName = "tpe"
    """`tpe` draws where trials were good so far (Bergstra et al., 2011), `random` anywhere, `grid` takes
    every combination once."""

    seed: Annotated[int, Field(ge=0, le=2**31)] = 0
    """Decides what is drawn; a trial draws by its number, so that a sweep that was killed repeats none."""

    startup: Annotated[int, Field(ge=1, le=100_000)] = 10
    """Of `tpe`: how many trials are random before it begins to learn from them."""


class PrunerConfig(Section):
    """When a trial ends early. A difference that chance explains ends none."""

    name: PrunerName = "none"
    """`median` ends a trial whose best value so far is below the median of the others at the same epoch;
    `halving` one that is not in the best third at epochs `after`, 3 · `after`, 9 · `after` … (successive
    halving, Li et al., 2020)."""

    after: Annotated[int, Field(ge=1, le=100_000)] = 1
    """Epochs, over all stages, that every trial has."""

    least: Annotated[int, Field(ge=2, le=100_000)] = 5
    """Other trials that must have come as far before one is ended."""

    margin: Annotated[float, Field(ge=0, le=1000)] | None = None
    """How far behind it must be: in standard errors of the difference of two scores on the validation images,
    2 by default; in nats where `val_loss` is monitored, which has no default."""


class EngineConfig(Section):
    """Where trials run."""

    name: EngineName = "local"
    """`local`: processes of this machine. `ray`: a Ray cluster, which the extra `ray` installs."""

    address: Text | None = None
    """Of `ray`: the cluster. `null` takes RAY_ADDRESS, else starts Ray on this machine."""

    cpus: Annotated[int, Field(ge=1, le=1024)] = 1
    """Of `ray`: cores that a trial reserves, and computes with."""

    gpus: Annotated[float, Field(ge=0, le=64)] = 0.0
    """Of `ray`: GPUs that a trial reserves; 0.5 puts two trials on one."""


class SweepFile(Section):
    """A whole sweep. `base` and `space` are required."""

    base: Text
    """The config that trials vary, relative to the sweep file."""

    trials: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """How many trials there are in the end, those of earlier runs of the sweep included."""

    minutes: Annotated[float, Field(gt=0, le=1e7)] | None = None
    """After so long no trial begins any more; those that run come to their end."""

    set: dict[str, Any] = {}  # noqa: RUF012  (pydantic copies it)
    """Values of keys for all trials, in place of those of the base."""

    space: Annotated[dict[str, Any], Field(min_length=1)]
    """The keys to search, and the values of each."""

    seeds: Annotated[int, Field(ge=1, le=1000)] = 1
    """Trainings of a trial, each with a seed of its own; the value of the trial is their mean."""

    monitor: MonitorSetting | None = None
    """What is searched for; `null` takes `monitor` of the base."""

    sampler: SamplerConfig = SamplerConfig()
    """How values are chosen: a name, or a mapping."""

    pruner: PrunerConfig = PrunerConfig()
    """When a trial ends early: a name, or a mapping."""

    engine: EngineConfig = EngineConfig()
    """Where trials run: a name, or a mapping."""

    study: StudyStorage = "sqlite"
    """How the folder of the sweep keeps trials: `sqlite`, or `journal` where several machines write."""


NAMED = ("sampler", "pruner", "engine")
"""Sections for which their name alone may stand."""
