"""The story of `finetune lr-find`: sweep a stage, and show what the curve says."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.commands.prepare import prepare
from finetune.config.config import Config
from finetune.config.yaml_writer import write_value
from finetune.data.quality.findings import warnings_of_copies
from finetune.display import Display
from finetune.errors import CheckpointError
from finetune.experiment.build import Experiment
from finetune.experiment.loaders import build_loaders
from finetune.experiment.lr_search import find_lr
from finetune.lr_finder.result import LrFindResult, StartingWeights
from finetune.machine.device import choose_device
from finetune.notes import as_warnings
from finetune.optim.learning_rates import LearningRate
from finetune.report.lr_finder import curve_plot, refusal, show_found, write_plot
from finetune.report.plot import draw_text
from finetune.runs import MODEL
from finetune.runs.trained_model import TrainedModel, load_trained

__all__ = ["Answer", "lr_find", "rate_line", "refusal", "show_answer", "write_plot"]


@dataclass(frozen=True)
class Answer:
    """What `finetune lr-find` found, and how a config writes it."""

    found: LrFindResult
    lr: LearningRate | None
    """The stage's rate, with the slice that the config gives it; None if nothing was found."""

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as `lr-find --json` documents it."""
        return {"written": None if self.lr is None else self.lr.written, **self.found.to_dict()}


def lr_find(config: Config, stage: str, *, run_dir: Path | None, display: Display) -> Answer:
    """Find the learning rate of a stage, show how, and change nothing.

    Args:
        config: the experiment.
        stage: name of the stage.
        run_dir: a run whose weights to sweep from; None for the weights that a training starts with.
        display: where to show it.

    Raises:
        FinetuneError: whatever the user can fix in config, data or run. That no rate was found is no error
            here, see `report.lr_finder.refusal`.
    """
    number = config.find_stage(stage, default=0)
    before = tuple(stage.name for stage in config.stages[:number])
    weights = StartingWeights(config.model.weights, untrained_stages=before)
    if run_dir is None:
        experiment = prepare(config, display)
    else:
        trained = load_trained(run_dir, choose_device(config.device))
        experiment = prepare(with_backbone_of(config, run_dir), display)
        weights = start_from(experiment, trained, pretrained=config.model.weights)
    display.show(as_warnings(warnings_of_copies(experiment.index)))
    display.say(f"sweep   stage {config.stages[number].name}, from {weights}")
    found = find_lr(
        experiment, number, build_loaders(experiment, number), weights=weights, new_bar=display.bar
    )
    return Answer(found, None if found.lr is None else config.stages[number].lr.peaking_at(found.lr))


def with_backbone_of(config: Config, run_dir: Path) -> Config:
    """Return a config whose pretrained weights are a run's, so that its own need not be fetched."""
    return config.model_copy(update={"model": config.model.model_copy(update={"weights": str(run_dir)})})


def start_from(experiment: Experiment, trained: TrainedModel, *, pretrained: str) -> StartingWeights:
    """Put the best weights of a run into a model, head and all; return which they are.

    `pretrained` are the weights that the config names.

    Raises:
        CheckpointError: the run is not of the model and the classes of the experiment.
    """
    if trained.class_names != experiment.index.class_names:
        raise _other_run(trained, "its classes are not those of the config's data")
    if trained.metadata != experiment.index.metadata:
        raise _other_run(trained, "its metadata is not that of the config's data")
    ours, theirs = experiment.model.state_dict(), trained.model.state_dict()
    if {name: t.shape for name, t in ours.items()} != {name: t.shape for name, t in theirs.items()}:
        raise _other_run(trained, "not the model of the config")
    experiment.model.load_state_dict(theirs)
    return StartingWeights(pretrained, run=str(trained.run.directory), **trained.best._asdict())


def _other_run(trained: TrainedModel, difference: str) -> CheckpointError:
    return CheckpointError(
        f"{trained.run / MODEL}: {difference}.\nName a run of this config, or leave out --run."
    )


def show_answer(answer: Answer, display: Display) -> None:
    """Show the curve, the table of heuristics, the race, and the rate as the config would hold it."""
    if len(answer.found.curve.lrs) >= 2:
        display.say("")
        width = min(display.width, 100)
        display.say(draw_text(curve_plot(answer.found), width=width, ascii_only=display.ascii_only))
    show_found(answer.found, display)
    if answer.lr is not None:
        display.say(f"\n{rate_line(answer.lr)}")


def rate_line(lr: LearningRate) -> str:
    """Return the line that a stage in a config has for a rate."""
    return f"lr: {write_value(lr.written)}"
