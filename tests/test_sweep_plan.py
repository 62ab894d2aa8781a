"""A sweep file: checked whole, by the parser of configs, before any trial."""

import importlib.util
from pathlib import Path

import pytest
from conftest import run_finetune

from finetune.config.load_sweep import load_sweep
from finetune.errors import ConfigError

BASE = "data: {path: photos}\nseed: 7\n"
HEAD = "base: base.yaml\ntrials: 3\n"


def plan_of(folder, text, base=BASE):
    (folder / "base.yaml").write_text(base)
    (folder / "s.yaml").write_text(text)
    return load_sweep(folder / "s.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: base.yaml\n", "s.yaml:1 space: is missing; expected: The keys to search"),
        (HEAD + "spaces: {seed: [1]}", "s.yaml:3 spaces: unknown key; did you mean 'space'?"),
        (
            HEAD + "space: {a: [1]}\nsampler: tp",
            "s.yaml:4 sampler.name: expected one of tpe, random, grid; got tp",
        ),
        (
            HEAD + "space: {a: [1]}\npruner: {name: median, magin: 1}",
            "pruner.magin: unknown key; did you mean",
        ),
        (HEAD + "space:\n  optimizer.lr: {log: [1e-4, 1]}", "s.yaml:4 optimizer.lr: unknown key"),
        (
            HEAD + "space:\n  model.archh: [resnet18]",
            "s.yaml:4 model.archh: unknown key; did you mean 'arch'?",
        ),
        (
            HEAD + "space:\n  optimizer.weight_decay: {log: [1e-4, 90]}",
            "s.yaml:4 optimizer.weight_decay: expected",
        ),
        (HEAD + "space:\n  data.augment: [light, lihgt]", "got 'lihgt'; did you mean 'light'?"),
        (HEAD + "space:\n  stages.frozn.lr: [1e-3]", "s.yaml:4: stages has no 'frozn'"),
        (
            HEAD + "set: {data.augmentt: light}\nspace: {optimizer.name: [adam]}",
            "s.yaml:3 data.augmentt: unknown",
        ),
        (HEAD + "space: {seed: [1, 2]}", "the best seed is luck; write seeds: 3"),
        (HEAD + "space: {data.val: [0.1, 0.2]}", "trials that are judged on other images"),
        (HEAD + "space: {monitor: [val_loss, val_map]}", "by another score, cannot be compared"),
        (HEAD + "set: {model: {arch: resnet18}}\nspace: {model.arch: [resnet34]}", "model sets it as well"),
        (
            HEAD + "sampler: grid\nspace: {ema: {uniform: [0.9, 0.99]}}",
            "ema: a grid needs values that can be",
        ),
        (
            HEAD + "pruner: median\nspace: {stages.frozen.epochs: [1, 2]}",
            "stages.frozen.epochs is in the space",
        ),
        (HEAD + "pruner: median\nmonitor: val_loss\nspace: {ema: [0.9]}", "of val_loss no error is known"),
        ("data: {path: x}\n", "this is a config, not a sweep of one"),
        ("[]", "s.yaml:1: a sweep is a mapping"),
    ],
)
def test_mistakes_are_found_before_the_first_trial(tmp_path, text, message):
    with pytest.raises(ConfigError) as caught:
        plan_of(tmp_path, text)
    assert message in str(caught.value)


def test_values_that_do_not_go_together_are_shown_and_a_condition_settles_it(tmp_path):
    space = "space:\n  optimizer.name: [adam, sgd]\n  optimizer.momentum: {uniform: [0.8, 0.9]}\n"
    with pytest.raises(ConfigError, match=r"sgd has no momentum(.|\n)*with optimizer\.name: sgd.*when:"):
        plan_of(tmp_path, HEAD + space)
    plan_of(tmp_path, HEAD + space.replace("0.9]", "0.9], when: {optimizer.name: adam}"))


def test_a_space_with_more_corners_than_can_be_tried_is_checked_value_by_value(tmp_path):
    numbers = ", ".join(map(str, range(1, 24)))
    keys = f"  one_cycle.div: [{numbers}]\n  optimizer.clip_norm: [{numbers}]\n"
    plan_of(tmp_path, HEAD + "space:\n" + keys)
    with pytest.raises(ConfigError, match="expected a number of at least 1, got 0"):
        plan_of(tmp_path, HEAD + "space:\n" + keys.replace("div: [1,", "div: [0,"))


def test_the_sweep_that_ships_describes_one():
    plan = load_sweep(Path(__file__).parents[1] / "configs/sweeps/head.yaml")
    assert plan.base_samples() == {
        "optimizer.weight_decay": 0.01,
        "model.head.hidden": "[512]",
        "loss.label_smoothing": 0.0,
    }


def test_seeds_change_the_training_and_never_the_images_that_judge(tmp_path):
    plan = plan_of(tmp_path, HEAD + "seeds: 3\nspace: {data.augment: [none, light]}")
    configs = [plan.config({"data.augment": "light"}, number) for number in range(3)]
    assert [config.seed for config in configs] == [7, 8, 9]
    assert {config.data.split_seed for config in configs} == {7}
    alone = plan_of(tmp_path, HEAD + "space: {data.augment: [none, light]}").config({"data.augment": "light"})
    assert (alone.seed, alone.data.split_seed) == (7, None)


def test_the_base_is_found_beside_the_sweep_file_and_may_be_a_trial(tmp_path):
    (tmp_path / "deep").mkdir()
    text = HEAD + "space:\n  data.augment: [none, light]\n"
    plan = plan_of(tmp_path / "deep", text)
    assert plan.base_samples() is None  # standard is none of the choices
    within = HEAD + "space:\n  data.augment: [standard, light]\n  optimizer.weight_decay: {log: [1e-3, 1]}\n"
    plan = plan_of(tmp_path / "deep", within, BASE + "optimizer: {weight_decay: 0.02}\n")
    assert plan.base_samples() == {"data.augment": "standard", "optimizer.weight_decay": 0.02}


@pytest.mark.parametrize(("engine", "extra"), [("", "sweep"), ("engine: ray\n", "ray")])
def test_the_one_extra_that_brings_all_that_a_sweep_needs_is_named(tmp_path, monkeypatch, engine, extra):
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "s.yaml").write_text(f"{HEAD}{engine}space: {{data.batch_size: [16, 32]}}\n")
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *of: None if name in ("ray", "optuna") else found(name, *of)
    )
    asked = run_finetune("sweep", tmp_path / "s.yaml")
    assert asked.exit_code == 2
    assert f"pip install 'finetune-vision[{extra}]'" in asked.output
