"""The story of `finetune labels`: which labels are doubtful, and which class is likely instead."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from finetune.analysis.label_doubt import FOLDS, judge_labels, likely_targets
from finetune.analysis.label_flags import flag_labels
from finetune.commands.check.check import look_at_all
from finetune.commands.prepare import prepare
from finetune.config.config import Config
from finetune.data.index import ImageIndex, Sample
from finetune.data.indexing.corrections import NO_CLASS
from finetune.data.indexing.image_names import DROP, KEEP
from finetune.data.quality.finding import Item
from finetune.data.quality.findings import find_repeats
from finetune.display import Display
from finetune.experiment.build import Experiment
from finetune.experiment.image_features import image_features
from finetune.text import with_counts


@dataclass(frozen=True)
class JudgedImage:
    """One image, and what was found of its label."""

    sample: Sample
    label: str
    """its class; of several the names in one text"""
    likely: str
    doubt: float
    """0–1"""
    flagged: bool
    """whether cleanlab calls it wrong"""

    @property
    def doubtful(self) -> bool:
        """Whether another label is the likely one."""
        return self.likely != self.label

    def to_dict(self) -> dict[str, Any]:
        """Return the image as `labels --json` documents it."""
        return {
            "image": self.sample.name,
            "split": self.sample.split,
            "label": self.label,
            "doubt": round(self.doubt, 6),
            "flagged": self.flagged,
            "likely": self.likely,
        }


@dataclass(frozen=True)
class Answer:
    """What `finetune labels` found."""

    experiment: Experiment
    images: tuple[JudgedImage, ...]
    """of train and val, most doubtful first"""
    alike: tuple[Item, ...]
    """groups of images that are the same, or look alike, and have different labels"""

    @property
    def index(self) -> ImageIndex:
        """The data that were judged."""
        return self.experiment.index

    @property
    def flagged(self) -> list[JudgedImage]:
        """The images that cleanlab calls wrong, most doubtful first."""
        return [image for image in self.images if image.flagged]

    @property
    def doubtful(self) -> list[JudgedImage]:
        """The images for which another label is likely, most doubtful first."""
        return [image for image in self.images if image.doubtful]

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as `labels --json` documents it."""
        return {
            "images": [image.to_dict() for image in self.images],
            "alike": [
                [{"image": name, "label": label} for name, label in group] for group in self.labels_of_alike()
            ],
        }

    def labels_of_alike(self) -> list[list[tuple[str, str]]]:
        """Return the name and the label of each image in every group of `alike`."""
        samples = {sample.name: sample for sample in self.index.samples}
        return [[(name, self.index.label_text(samples[name])) for name in item.images] for item in self.alike]

    def rows(self) -> list[tuple[str, ...]]:
        """Return the rows of the table of decisions; images that were dropped before come last."""
        corrections = self.index.corrections
        rows: list[tuple[str, ...]] = [
            (i.sample.name, i.label, i.likely, f"{i.doubt:.6f}", self._decision(i)) for i in self.images
        ]
        for name, sample in ({} if corrections is None else corrections.dropped).items():
            label = self.index.label_text(sample)
            rows.append((name, label, label, f"{0:.6f}", DROP))
        return rows

    def _decision(self, image: JudgedImage) -> str:
        """Return what the corrections of the config have decided of an image."""
        corrections = self.index.corrections
        if corrections is None or image.sample.name not in corrections.relabelled:
            return KEEP
        return image.label or NO_CLASS


def find_doubtful(config: Config, display: Display) -> Answer:
    """Judge the labels of all images of train and val; those of the test images are left alone.

    Raises:
        FinetuneError: whatever the user can fix in config or data.
    """
    experiment = prepare(config, display)
    if experiment.index.metadata is not None:
        display.say("the metadata beside the images is not looked at")
    judged = tuple(s for s in experiment.index.samples if s.split != "test")
    experiment = replace(experiment, index=replace(experiment.index, samples=judged))
    if few := _rare_classes(experiment.index):
        display.warn(f"too few images to judge: {few}; their labels seem doubtful whether or not they are")
    parts = [image_features(experiment, split, display.bar) for split in ("train", "val")]
    index, several = experiment.index, experiment.index.task.multilabel
    targets = torch.cat([part.one_hot(len(index.class_names)) for part in parts])
    features = torch.cat([part.features for part in parts])
    with display.bar("judging labels", 3, "judges") as bar:
        judgement = judge_labels(features, targets, several=several, advance=bar.advance_by)
    flagged = flag_labels(judgement.probabilities, targets, several=several)
    likely = likely_targets(judgement.probabilities, several=several)
    samples = [sample for part in parts for sample in part.samples]
    images = [
        JudgedImage(sample, index.label_text(sample), _text(index, classes), doubt, flag)
        for sample, classes, doubt, flag in zip(
            samples, likely, judgement.doubt.tolist(), flagged.tolist(), strict=True
        )
    ]
    images.sort(key=lambda image: -image.doubt)
    return Answer(experiment, tuple(images), find_alike(experiment, display))


def _rare_classes(index: ImageIndex) -> str:
    train, val = index.counts("train"), index.counts("val")
    few = {name: train[name] + val[name] for name in train if train[name] + val[name] < FOLDS}
    return with_counts(few)


def _text(index: ImageIndex, classes: Tensor) -> str:
    return index.task.label_text([index.class_names[number] for number in classes.nonzero()[:, 0].tolist()])


def find_alike(experiment: Experiment, display: Display) -> tuple[Item, ...]:
    """Find images that are the same or look alike and have different labels."""
    if experiment.index.root is None:
        return ()
    looks, reasons = look_at_all(experiment.index, experiment.limits, display.bar)
    index = experiment.index
    readable = replace(index, samples=tuple(s for s in index.samples if s not in reasons))
    found = find_repeats(readable, looks, experiment.limits)
    return tuple(item for finding in found if finding.kind.endswith("two-labels") for item in finding.items)
