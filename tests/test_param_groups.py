"""What a stage will do to each layer group: planned without touching the model."""

from dataclasses import replace

import pytest
from conftest import run_finetune, write_small_config

from finetune.commands.groups import describe_groups
from finetune.config.load import load_config
from finetune.experiment.build import freeze_for_stage, plan_groups
from finetune.experiment.model import build_model
from finetune.experiment.read_data import read_index
from finetune.model import HeadSpec, ImageClassifier, ModelSpec, build_classifier
from finetune.optim.learning_rates import LearningRate, parse_lr
from finetune.optim.param_groups import RateRule, optimizer_groups, plan_stage

RULE = RateRule(divisor=3.0, spacing="geometric", weight_decay=0.1, decay_bias_and_norm=False)


@pytest.fixture(scope="module")
def model():
    spec = ModelSpec("shufflenet_v2_x0_5", 3, head=HeadSpec(hidden=(4,), dropout=(0, 0)), image_size=32)
    return build_classifier(spec, weights="none", seed=0)


def plan(model, trainable, batch_norm="auto", rule=RULE, lr=LearningRate(1e-3)):  # noqa: B008
    return plan_stage(model.layer_groups, trainable=trainable, batch_norm=batch_norm, lr=lr, rule=rule)


def state_of(model):
    modes = {name: module.training for name, module in model.named_modules()}
    return modes, {name: (p.requires_grad, p.grad) for name, p in model.named_parameters()}


@pytest.mark.parametrize("batch_norm", ["auto", "still", "train"])
@pytest.mark.parametrize("trainable", [1, 2, 3])
@pytest.mark.parametrize("frozen_before", [1, 3])
def test_a_plan_is_what_freezing_makes_true_and_changes_nothing(model, trainable, batch_norm, frozen_before):
    model.freeze(frozen_before)
    before = state_of(model)
    plans = plan(model, trainable, batch_norm)
    assert state_of(model) == before
    planned = {id(p) for group in plans for p in (*group.decayed, *group.undecayed)}
    model.freeze(trainable, batch_norm=batch_norm)
    assert planned == {id(p) for p in model.parameters() if p.requires_grad}
    assert [group.trainable for group in plans] == [index >= 3 - trainable for index in range(3)]
    assert [group.lr is None for group in plans] == [
        not any(p.requires_grad for p in group.parameters()) for group in model.layer_groups
    ]


def test_every_learning_parameter_is_in_one_group_of_the_optimizer_with_its_decay(model):
    plans = plan(model, 2, "train")
    groups = optimizer_groups(plans)
    ids = [id(p) for group in groups for p in group["params"]]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(p) for group in plans for p in (*group.decayed, *group.undecayed)}
    for group in groups:
        assert {p.ndim > 1 for p in group["params"]} == {group["weight_decay"] > 0}
    names = [(group["name"], group["weight_decay"]) for group in groups]
    assert names == [
        ("early backbone", 0.0),  # its norm layers
        ("late backbone", 0.1),
        ("late backbone", 0.0),
        ("head", 0.1),
        ("head", 0.0),
    ]


def test_everything_is_decayed_where_the_rule_says_so(model):
    rule = RateRule(divisor=3.0, spacing="geometric", weight_decay=0.1, decay_bias_and_norm=True)
    assert [group["weight_decay"] for group in optimizer_groups(plan(model, 3, rule=rule))] == [0.1] * 3


def test_planning_a_stage_of_a_config_does_not_freeze_and_freezing_does(images, tmp_path):
    config = load_config(write_small_config(tmp_path, images))
    model = build_model(config, read_index(config))
    before = state_of(model)
    for stage in config.stages:
        plan_groups(config, stage, model)
    assert state_of(model) == before
    freeze_for_stage(config.stages[0], model)
    assert model.only_head_learns


def test_groups_shows_a_frozen_stage_of_a_model_that_is_not_frozen(images, tmp_path, monkeypatch):
    """`groups` and `--dry-run` plan all stages, and freeze the model for none of them."""

    def refuse(self, *args, **kwargs):
        raise AssertionError("a plan froze the model")

    monkeypatch.setattr(ImageClassifier, "freeze", refuse)
    config = write_small_config(tmp_path, images)
    plans, _ = describe_groups(load_config(config), "frozen")
    assert [plan.lr for plan in plans] == [None, None, 0.01]
    result = run_finetune("train", config, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "Nothing was trained" in result.stdout


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["model.weights=builtin:glyphs"], "the statistics of the backbone stand still"),
        (["model.weights=none"], "statistics move in the groups that train (random weights)"),
        (
            ["model.weights=none", "stages.frozen.batch_norm=still"],
            "the statistics of the backbone stand still",
        ),
        (
            ["model.weights=builtin:glyphs", "stages.frozen.batch_norm=train"],
            "statistics move everywhere, and the norms of frozen groups learn",
        ),
        (["model.weights=none", "model.arch=squeezenet1_1"], None),  # a network without such statistics
    ],
)
def test_groups_says_what_the_statistics_of_batch_norm_do(images, tmp_path, changes, says):
    config = load_config(write_small_config(tmp_path, images), changes)
    _, notes = describe_groups(config, "frozen")
    found = [note.text for note in notes if note.text.startswith("batch norm: ")]
    assert found == ([] if says is None else [f"batch norm: {says}"])


@pytest.mark.parametrize(
    ("written", "spacing", "rates"),
    [
        ("slice(3e-3)", "geometric", [1e-3, 1e-3, 3e-3]),
        ("slice(1e-4, 1e-2)", "geometric", [1e-4, 1e-3, 1e-2]),
        ("slice(1e-4, 1e-2)", "linear", [1e-4, 5.05e-3, 1e-2]),
    ],
)
def test_the_rule_spreads_a_rate_over_the_groups(model, written, spacing, rates):
    plans = plan(model, 3, rule=replace(RULE, spacing=spacing), lr=parse_lr(written))
    assert [group.lr for group in plans] == pytest.approx(rates)


def test_a_row_says_who_learns_and_how_fast(model):
    still, moving = ([group.row()[4:6] for group in plan(model, 1, norms)] for norms in ("still", "train"))
    assert still == [("frozen", "–"), ("frozen", "–"), ("trained", "0.001")]
    assert [state for state, _ in moving] == ["only norms train", "only norms train", "trained"]
    to_be_found = plan(model, 3, lr=parse_lr("slice(auto)"))
    assert [group.row()[5] for group in to_be_found] == ["auto/3", "auto/3", "auto"]
