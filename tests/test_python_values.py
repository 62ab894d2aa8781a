"""Configs from Python values: the same checks and messages as for a file, named as Python names things."""

from pathlib import Path

import numpy as np
import pytest

from finetune.config.config import Config
from finetune.config.data import DataConfig
from finetune.config.load import config_from_values, load_config
from finetune.config.python_values import Override
from finetune.errors import ConfigError


def override(key: str, value: object) -> Override:
    return Override(tuple(key.split(".")), value, f"overrides[{key!r}]")


def test_python_values_say_what_yaml_says(tmp_path: Path):
    (tmp_path / "c.yaml").write_text(
        "data: {path: photos, image_size: 64}\nmodel: {head: {hidden: [8, 4]}}\n"
        "stages: [{name: one, train: head, epochs: 3, lr: 1e-3}]\n"
    )
    stage = {"name": "one", "train": "head", "epochs": np.int64(3), "lr": np.float64(1e-3)}
    values = {
        "data": {"path": Path("photos"), "image_size": 64},
        "model": {"head": {"hidden": (8, 4)}},
        "stages": (stage,),
    }
    assert config_from_values(values, "config") == load_config(tmp_path / "c.yaml")
    assert values["stages"] == (stage,)


def test_all_mistakes_are_reported_at_once_each_with_its_place():
    values = {"data": {"path": "x", "batchsize": 3}, "seed": 1.5}
    overrides = [
        override("stages.frozen.epochs", "3"),
        override("stages.third.epochs", 3),
        override("optimizer.name", "adan"),
    ]
    with pytest.raises(ConfigError) as caught:
        config_from_values(values, "config", overrides)
    assert set(str(caught.value).splitlines()) == {
        "overrides['stages.third.epochs']: stages has no 'third'; it holds 2, counted from 0: frozen, "
        "unfrozen",
        "config data.batchsize: unknown key; did you mean 'batch_size'?",
        "config seed: expected a whole number, got 1.5",
        "overrides['stages.frozen.epochs'] stages.frozen.epochs: expected a whole number, got '3'; "
        "write it without quotes and leading zeros",
        "overrides['optimizer.name'] optimizer.name: expected one of sgd, momentum, nesterov, adagrad, "
        "rmsprop, adadelta, adam, adamw, nadam, radam, ranger, lamb, lion; got 'adan'; did you mean 'adam'?",
    }


def test_a_config_can_be_overridden_and_stays_as_it_was():
    config = Config(data=DataConfig(path="x"))
    changed = config_from_values(config, "Config", [override("stages.frozen.epochs", 7)])
    assert [stage.epochs for stage in changed.stages] == [7, 4]
    assert [stage.epochs for stage in config.stages] == [1, 4]


def test_defaults_follow_an_overridden_optimizer():
    changed = config_from_values(
        Config(data=DataConfig(path="x")), "Config", [override("optimizer.name", "adadelta")]
    )
    assert (
        changed.stages
        == Config.model_validate({"data": {"path": "x"}, "optimizer": {"name": "adadelta"}}).stages
    )


def test_a_config_built_in_python_reports_mistakes_as_a_file_does():
    with pytest.raises(ConfigError, match=r"^Config data.path: is missing; expected: Folder with"):
        Config.model_validate({})
    with pytest.raises(ConfigError, match=r"^Config seed: expected a whole number, got 3.0$"):
        Config(data=DataConfig(path="x"), seed=3.0)


def test_values_that_hold_themselves_are_refused():
    values: dict[str, object] = {}
    values["data"] = values
    with pytest.raises(ConfigError, match="config: nested more than 16 deep"):
        config_from_values(values, "config")


def test_what_is_no_plain_value_is_refused_by_its_key():
    with pytest.raises(ConfigError, match=r"config data: expected a mapping with keys from path, .*got <obj"):
        config_from_values({"data": object()}, "config")
