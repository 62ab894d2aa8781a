"""Choose backbone, image size, batch, epochs and rate for a folder or table of images."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from finetune.commands.auto.choices import USUAL_RATE, Choices, config_of, config_text, first_choices
from finetune.commands.auto.plan import Plan, Planner
from finetune.commands.init import check_target, read_options
from finetune.commands.rank.rank import rank
from finetune.commands.rank.ranking import Ranking, show
from finetune.commands.survey import Survey, survey_data
from finetune.config.python_values import Override
from finetune.config.yaml_writer import write_value
from finetune.display import Display, duration
from finetune.errors import ConfigError
from finetune.experiment.backbone_score import score_backbone
from finetune.experiment.build import Experiment, build_experiment
from finetune.experiment.loaders import build_loaders
from finetune.experiment.lr_search import find_lr
from finetune.experiment.read_data import read_data
from finetune.machine.device import choose_device
from finetune.machine.files import reported_disk_errors
from finetune.model import find_architecture
from finetune.text import counted


def choose_config(
    data: Path,
    target: Path,
    *,
    minutes: float,
    download: bool,
    display: Display,
    overrides: Sequence[str | Override] = (),
) -> Choices:
    """Choose everything about a training, and write the config that says so.

    Args:
        data: a folder or table of images.
        target: the config to write.
        minutes: how long choosing and training may take.
        download: consider backbones whose weights have to be fetched.
        display: where to show what is measured.
        overrides: how the data are to be read, as for `finetune init`; all else is chosen here.

    Raises:
        FinetuneError: data that are no data set, no weights, or a file that cannot be written.
    """
    check_target(target)
    deadline = time.perf_counter() + 60 * minutes
    otherwise = "it chooses the others; for a choice of your own: finetune init, and finetune train"
    survey = survey_data(data, read_options(data, overrides, command="auto", otherwise=otherwise))
    choices = choose(
        data, survey, download=download, display=display, seconds_left=lambda: deadline - time.perf_counter()
    )
    text = config_text(data, str(target), survey, choices)
    with reported_disk_errors(target), target.open("x", encoding="utf-8", newline="\n") as file:
        file.write(text)
    display.say(f"written to {target}\n")
    return choices


def choose(
    data: Path, survey: Survey, *, download: bool, display: Display, seconds_left: Callable[[], float]
) -> Choices:
    """Choose a backbone by its rank, what fits into the time by trying steps, and a rate by a race."""
    of = partial(config_of, data, survey)
    choices = first_choices(survey)
    ranking = rank(of(choices), (), download=download, on_val=False, display=display)
    show(ranking, display)
    config = of(choices)
    device, images = choose_device(config.device), read_data(config, display.bar)
    planner = Planner(of, device, images, seconds_left)
    plan = plan_best(planner, choices, ranking)
    plan = smaller_if_better(planner, plan, ranking, display)
    display.say(plan_line(plan))
    experiment = build_experiment(of(plan.choices), device, images, say=lambda _: None)
    lr, reason = race(experiment, display)
    return replace(plan.choices, lr=lr, reasons={**plan.choices.reasons, "lr": reason})


def plan_best(planner: Planner, choices: Choices, ranking: Ranking) -> Plan:
    """Plan with the best backbone; where it is too slow, with the next that is indistinguishable from it."""
    plans = []
    ranked = choices.image_size
    for score in ranking.indistinguishable:
        points = f"{100 * score.score:.1f} ± {100 * score.standard_error:.1f}%"
        reason = f"{points} by finetune rank, of {counted(len(ranking.scores), 'backbone')}"
        own = replace(choices, arch=score.arch, weights=score.weights, reasons={"arch": reason})
        plan = planner.plan(own, find_architecture(score.arch).image_size)
        if plan.choices.image_size >= ranked and plan.choices.epochs == choices.epochs:
            return plan
        plans.append(plan)
    return max(plans, key=lambda plan: (plan.choices.epochs, plan.choices.image_size, -plan.seconds))


def smaller_if_better(planner: Planner, plan: Plan, ranking: Ranking, display: Display) -> Plan:
    """Return to the size of the ranking where larger images do not tell the classes apart better."""
    before = next(score for score in ranking.scores if score.arch == plan.choices.arch)
    if plan.choices.image_size <= before.image_size:
        return plan
    experiment = build_experiment(
        planner.config_of(plan.choices), planner.device, planner.data, say=lambda _: None
    )
    after = score_backbone(experiment, score=ranking.score, on_val=ranking.on_val, new_bar=display.bar)
    sizes = [f"{100 * score.score:.1f}% at {score.image_size} px" for score in (after, before)]
    scores = ", ".join(sizes)
    display.say(f"size    {scores}")
    if after.score >= before.score:
        return plan
    try:
        smaller = planner.measure(replace(plan.choices, image_size=before.image_size))
    except ConfigError:
        return plan
    reasons = {**smaller.choices.reasons, "image_size": scores}
    return Plan(replace(smaller.choices, reasons=reasons), smaller.cost)


def plan_line(plan: Plan) -> str:
    """Say what will be trained, and how long it should take."""
    chosen = plan.choices
    return (
        f"plan    {chosen.arch}, {chosen.image_size} px, batches of {chosen.batch_size}, "
        f"{counted(chosen.epochs, 'unfrozen epoch')}: about {duration(plan.seconds)}"
    )


def race(experiment: Experiment, display: Display) -> tuple[float, str]:
    """Find the rate of the first stage on its cached features; return it, and how it was found."""
    found = find_lr(experiment, 0, build_loaders(experiment, 0), new_bar=display.bar)
    if found.lr is None:
        display.say(f"rate    {write_value(USUAL_RATE)}, as the search refused: {found.by}")
        return USUAL_RATE, f"the usual rate: {found.by}"
    display.say(f"rate    {write_value(found.lr)} ({found.by})")
    return found.lr, f"rate of the frozen stage: {found.by}"
