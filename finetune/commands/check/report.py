"""What `finetune check` has found, for people and for programs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from finetune.choices import Split
from finetune.commands.check.stage_cost import StageCost
from finetune.commands.train.stages import show_stage
from finetune.data.index import ImageIndex
from finetune.data.quality.finding import Finding, Level
from finetune.display import Display, duration
from finetune.errors import DataError
from finetune.experiment.build import Experiment, loader_workers, model_line
from finetune.experiment.features import feature_notes
from finetune.experiment.read_data import correction_lines, layout_lines, metadata_lines
from finetune.experiment.recipe import recipe_lines
from finetune.text import counted, printable

_LISTED = 20  # items of a finding, classes of a table
_TOGETHER = 4  # images of one item

SPLITS: tuple[Split, ...] = get_args(Split)
LEVELS: tuple[Level, ...] = get_args(Level)


@dataclass(frozen=True)
class Report:
    """What `finetune check` found."""

    findings: tuple[Finding, ...]
    index: ImageIndex | None = None
    """All images, also those that cannot be read; None where the folders are no data set."""
    experiment: Experiment | None = None
    stages: tuple[StageCost, ...] = ()
    """What each stage takes; empty where they could not be tried."""

    def count(self, level: Level) -> int:
        """Count the findings of one level."""
        return sum(finding.level == level for finding in self.findings)

    def exit_code(self, *, strict: bool) -> int:
        """Return 3 where something has to be fixed, else 0; with `strict`, warnings count as well."""
        return DataError.exit_code if self.count("error") or (strict and self.count("warning")) else 0

    def to_dict(self, *, strict: bool) -> dict[str, Any]:
        """Return the report as `check --json` documents it."""
        index = self.index or ImageIndex(None, (), ())
        samples = {sample.name: sample for sample in index.samples}
        counts = {split: index.counts(split) for split in SPLITS}
        return {
            "exit_code": self.exit_code(strict=strict),
            "findings": [finding.to_dict(samples, index) for finding in self.findings],
            "layout": index.layout and index.layout.to_dict(),
            "images": len(index.samples),
            "classes": {name: {split: counts[split][name] for split in SPLITS} for name in index.class_names},
            "plan": self._plan(),
        }

    def _plan(self) -> dict[str, Any] | None:
        if self.experiment is None or not self.stages:
            return None
        config = self.experiment.config
        return {
            "arch": config.model.arch,
            "weights": config.model.weights,
            "device": str(self.experiment.device),
            "precision": config.precision,
            "image_size": config.data.image_size,
            "batch_size": config.data.batch_size,
            "workers": loader_workers(self.experiment),
            "stages": [stage.to_dict() for stage in self.stages],
            "seconds": sum(stage.seconds for stage in self.stages),
        }


def show(report: Report, display: Display, *, strict: bool) -> None:
    """Tell what a training will do, what was found, the gravest last, and how it stands."""
    if report.index is not None:
        show_classes(report.index, display)
    if report.experiment is not None and report.stages:
        show_plan(report.experiment, report.stages, display)
    for level in reversed(LEVELS):
        for finding in report.findings:
            if finding.level == level:
                show_finding(finding, display)
    numbers = [(report.count(level), level) for level in LEVELS]
    found = ", ".join(counted(number, level) for number, level in numbers if number)
    if report.count("error"):
        must = "the errors keep a training from starting"
    else:
        must = (
            "to be fixed, as --strict says" if report.exit_code(strict=strict) else "nothing has to be fixed"
        )
    display.say(f"\n{found + ': ' if found else ''}{must}")


def show_classes(index: ImageIndex, display: Display) -> None:
    """Show how many images of each class there are in each split."""
    splits = [split for split in SPLITS if index.count(split)]
    counts = {split: index.counts(split) for split in splits}
    rows = [(name, *(counts[split][name] for split in splits)) for name in index.class_names]
    display.table(("class", *splits), rows[:_LISTED])
    if len(rows) > _LISTED:
        display.say(f"… and {len(rows) - _LISTED:,} more")
    if len(rows) > 1:
        without = sum(not sample.labels for sample in index.samples)
        more = f", {without:,} of them without a class" if without else ""
        display.say(f"{counted(len(rows), 'class', 'classes')}, {counted(len(index.samples), 'image')}{more}")
    for line in [*layout_lines(index), *correction_lines(index)]:
        display.say(line)


def show_plan(experiment: Experiment, stages: Sequence[StageCost], display: Display) -> None:
    """Show what each stage will do to which layer group, and what it takes."""
    config = experiment.config
    lines = [*metadata_lines(experiment.index), *recipe_lines(config), model_line(experiment)]
    display.say("\n" + "\n".join(lines))
    for number, (stage, cost) in enumerate(zip(config.stages, stages, strict=True)):
        show_stage(number, stage, list(cost.plans), len(stages), display)
        display.show(feature_notes(experiment, stage))
    rows = [
        (cost.name, cost.steps, f"{cost.seconds_per_step:.2g} s", duration(cost.seconds), _size(cost))
        for cost in stages
    ]
    display.say("")
    display.table(("stage", "steps", "a step", "in all", "peak memory"), rows)
    searched = [stage.name for stage in config.stages if stage.lr.auto]
    whole = f"the whole training takes about {duration(sum(cost.seconds for cost in stages))}"
    if searched:
        whole += f"; the search for the rate of {', '.join(searched)} comes on top, and is not in this figure"
    display.say(
        f"batches of {config.data.batch_size}; times are from a few steps of each stage, tried here\n{whole}"
    )


def show_finding(finding: Finding, display: Display) -> None:
    """Tell one finding, with the first of its images."""
    display.say(f"\n{finding.level}: {finding.message}")
    lines = list(_lines_of(finding))
    for line in lines[:_LISTED]:
        display.say(f"  {line}")
    if len(lines) > _LISTED:
        display.say(f"  … and {len(lines) - _LISTED:,} more")
    if len(lines) > _LISTED or len(lines) < len(finding.items):
        display.say("  --json, --html and --csv list all")
    if finding.advice:
        display.say(finding.advice)


def _lines_of(finding: Finding) -> Iterator[str]:
    """Return a line for each item; one for all images of which the same is said."""
    alike: dict[str, list[str]] = {}
    for item in finding.items:
        if len(item.images) == 1:
            alike.setdefault(item.detail, []).extend(item.images)
        else:
            yield _line(" = ", item.images, item.detail)
    for detail, names in alike.items():
        if len(names) <= _TOGETHER:
            yield from (_line("", [name], detail) for name in names)
        else:
            yield _line(", ", names, detail)


def _line(between: str, names: Sequence[str], detail: str) -> str:
    """Name the first of some images, and say what there is to say of them."""
    more = f" and {len(names) - _TOGETHER:,} more" if len(names) > _TOGETHER else ""
    return between.join(map(printable, names[:_TOGETHER])) + more + (detail and f": {detail}")


def _size(cost: StageCost) -> str:
    return "–" if cost.peak_memory is None else f"{cost.peak_memory / 2**30:.2f} GiB"
