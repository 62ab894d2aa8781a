"""The story of `finetune check`: what is wrong with the images, and what a training will do and take."""

import itertools
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from finetune.commands.check.output import write_page, write_table
from finetune.commands.check.report import Report
from finetune.commands.check.stage_cost import StageCost, measure_stage_costs, stage_cost_loaders
from finetune.config.config import Config
from finetune.data.images import ImageLimits, Look, look_at_images
from finetune.data.index import ImageIndex, Sample
from finetune.data.indexing.find_images import listing_bar
from finetune.data.quality.finding import Finding
from finetune.data.quality.findings import find_bad, find_few, find_odd, find_repeats
from finetune.data.quality.looks import Looks
from finetune.data.quality.poor_images import find_poor
from finetune.data.quality.scan_cache import ScanMemory
from finetune.data.quality.shortcuts import find_shortcuts
from finetune.display import Display
from finetune.errors import DataError
from finetune.experiment.build import Experiment, build_experiment, lowered_batch
from finetune.experiment.read_data import ImageData, image_limits, read_index
from finetune.machine.device import choose_device, keep_large_buffers
from finetune.machine.memory import out_of_memory
from finetune.model import find_architecture, pending_download
from finetune.progress import NewBar
from finetune.text import counted


def check(config: Config, display: Display) -> Report:
    """Look at every image, and try every stage on real batches; write nothing but the memory of scans.

    Nothing is downloaded: weights that are not on this machine are replaced by random ones, which take the
    same time and memory.

    Raises:
        FinetuneError: what is wrong with the config or this machine, rather than with the data.
    """
    keep_large_buffers()
    device = choose_device(config.device)
    at_hand, findings = use_weights_at_hand(config)
    try:
        with listing_bar(display.bar):
            index = read_index(config)
        experiment = build_experiment(
            at_hand, device, ImageData(index, image_limits(config)), say=display.say
        )
    except DataError as error:
        advice = "The images were not looked at; fix this first."
        return Report((*findings, Finding("error", "layout", str(error), advice)))
    findings += [Finding("warning", "layout", line) for line in index.warnings]
    if lowered_batch(config, experiment):
        findings.append(Finding("warning", "batch-size", lowered_batch(config, experiment)))
    findings += find_few(index)
    if index.root is not None:
        kept, found = look_at_data(experiment, display.bar)
        findings += found
        experiment = replace(experiment, index=kept)
    stages, found = try_stages(experiment, display.bar)
    findings += found
    original = experiment.config.model_copy(update={"model": config.model})
    return Report(tuple(findings), index, replace(experiment, config=original), tuple(stages))


def write_files(
    report: Report, config: Config, display: Display, *, html: Path | None, csv: Path | None
) -> list[str]:
    """Write the page and the table of what was found, where they were asked for; say where they are.

    Raises:
        ConfigError: somebody has decided something in the table.
        ResourceError: a file cannot be written.
    """
    lines = []
    if csv is not None:
        write_table(report, csv)
        lines.append(f"table   {csv}; decide in its last column, then data.exclude={csv}")
    if html is not None:
        limits = image_limits(config)
        shown = write_page(report, html, title=config.data.path, limits=limits, display=display)
        lines.append(f"page    {html}, with {counted(shown, 'image')}")
    return lines


def use_weights_at_hand(config: Config) -> tuple[Config, list[Finding]]:
    """Put random weights in the place of those that would have to be downloaded."""
    download = pending_download(config.model.weights, find_architecture(config.model.arch))
    if download is None:
        return config, []
    message = f"the weights are not on this machine: {download}"
    advice = "Training fetches them when it starts; below, random ones stand in for them."
    size = config.data.image_size or download.image_size
    sections = {
        "model": config.model.model_copy(update={"weights": "none"}),
        "data": config.data.model_copy(update={"image_size": size}),
    }
    return config.model_copy(update=sections), [Finding("note", "weights", message, advice)]


def look_at_data(experiment: Experiment, new_bar: NewBar) -> tuple[ImageIndex, list[Finding]]:
    """Decode every image and compare them all; give the index without the bad ones, and what was found."""
    index, data = experiment.index, experiment.config.data
    looks, reasons = look_at_all(index, experiment.limits, new_bar)
    kept, findings = find_bad(index, reasons, data.on_bad_image, data.max_bad_fraction)
    return kept, [*findings, *compare_looks(kept, looks, experiment.limits)]


def compare_looks(index: ImageIndex, looks: Mapping[str, Look], limits: ImageLimits) -> list[Finding]:
    """Find what is repeated, odd, poor or a shortcut among the readable images of an index."""
    found = [find_repeats(index, looks, limits), find_odd(looks), find_poor(looks)]
    return [*itertools.chain.from_iterable(found), *find_shortcuts(index, looks)]


def look_at_all(index: ImageIndex, limits: ImageLimits, new_bar: NewBar) -> tuple[Looks, dict[Sample, str]]:
    """Decode every image; give the looks at the good ones, and what is wrong with the others.

    The good ones are remembered, so that a training after it does not decode them again.
    """
    assert index.root is not None
    looks = Looks()
    reasons: dict[Sample, str] = {}
    memory = ScanMemory(index.root, limits)
    paths = [os.path.join(index.root, sample.name) for sample in index.samples]
    try:
        with new_bar("looking at images", len(paths)) as bar:
            for sample, look in zip(index.samples, look_at_images(paths, limits), strict=True):
                if isinstance(look, str):
                    reasons[sample] = look
                else:
                    looks.add(sample.name, look)
                    memory.remember(sample.name, look.info)
                bar.advance_by(1)
    finally:
        memory.save()
    return looks, reasons


def try_stages(experiment: Experiment, new_bar: NewBar) -> tuple[list[StageCost], list[Finding]]:
    """Take a few steps of each stage; give what they take, or what keeps them from being taken."""
    stages: list[StageCost] = []
    names = [stage.name for stage in experiment.config.stages]
    try:
        loaders = stage_cost_loaders(experiment)
        with new_bar("trying stages", len(names), "stages") as bar:
            for number in range(len(names)):
                stages.append(measure_stage_costs(experiment, number, loaders.of_stage(number)))
                bar.advance_to(number + 1)
    except DataError as error:
        return [], [Finding("error", "untried", f"the stages cannot be tried: {error}")]
    except RuntimeError as error:
        known = out_of_memory(error, experiment.config.data.batch_size)
        if known is None:
            raise
        return [], [Finding("error", "memory", f"stage {names[len(stages)]} does not fit: {known}")]
    return stages, []
