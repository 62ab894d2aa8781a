import json
import math
import subprocess
import sys

import pytest
from pydantic import ValidationError

from finetune.config.config import Config, default_stages
from finetune.config.data import DataConfig
from finetune.config.docstrings import key_docstrings
from finetune.config.sections import HeadConfig, ModelConfig, OneCycleConfig, StageConfig
from finetune.errors import ConfigError
from finetune.optim.learning_rates import LearningRate, parse_lr
from finetune.optim.update_rules import UPDATE_RULES


def a_config(**sections: object) -> Config:
    return Config.model_validate({"data": {"path": "photos"}, **sections})


def a_stage(**changes: object) -> dict[str, object]:
    return {"name": "frozen", "train": "head", "epochs": 1, "lr": 1e-3, **changes}


def test_only_the_path_of_the_data_is_required():
    config = a_config()
    assert [(stage.name, stage.train, stage.epochs, str(stage.lr)) for stage in config.stages] == [
        ("frozen", "head", 1, "3e-3"),
        ("unfrozen", "all", 4, "slice(1e-5, 1e-3)"),
    ]
    assert config.data.val == "auto"
    assert config.one_cycle.moms == (0.95, 0.85, 0.95)
    with pytest.raises(ConfigError, match=r"Config data.path: is missing; expected: Folder with"):
        Config.model_validate({})


def test_a_config_cannot_be_changed():
    config = a_config()
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 1
    assert isinstance(config.stages, tuple)
    assert isinstance(config.model.head.hidden, tuple)


@pytest.mark.parametrize("value", [3.0, "3", True, None, [3], 1, 0, -2, 10**400])
def test_a_batch_size_is_a_whole_number_of_at_least_two(value: object):
    with pytest.raises(ValidationError, match="batch_size"):
        DataConfig.model_validate({"path": "x", "batch_size": value})


@pytest.mark.parametrize("value", ["3", True, None, math.nan, math.inf, -1.0, 10.1, 10**400])
def test_a_weight_decay_is_a_finite_number_up_to_ten(value: object):
    with pytest.raises(ConfigError, match="weight_decay"):
        a_config(optimizer={"weight_decay": value})


def test_every_setting_of_an_optimizer_can_be_set_and_no_other():
    for name, rule in UPDATE_RULES.items():
        for setting, value in {"momentum": 0.5, "beta2": 0.5, "eps": 1e-3, "form": "classic"}.items():
            section = {"name": name, setting: value}
            if setting in rule.settings.given():
                assert a_config(optimizer=section).optimizer.settings.given() == {setting: value}
            else:
                with pytest.raises(ConfigError, match=f"{name} has no {setting}; it has"):
                    a_config(optimizer=section)
        assert a_config(optimizer={"name": name}).optimizer.settings.given() == {}


def test_a_setting_may_be_left_to_any_optimizer():
    written = {"name": "sgd", "momentum": None, "beta2": None, "eps": None, "form": None}
    assert a_config(optimizer=written) == a_config(optimizer={"name": "sgd"})


def test_adadelta_starts_from_other_defaults():
    adadelta, adam = a_config(optimizer={"name": "adadelta"}), a_config()
    assert [str(stage.lr) for stage in adadelta.stages] == ["1", "slice(0.01, 1)"]
    assert default_stages("adadelta") == adadelta.stages
    assert (adadelta.optimizer.decay, adam.optimizer.decay) == ("l2", "decoupled")
    assert a_config(optimizer={"name": "adadelta", "decay": "decoupled"}).optimizer.decay == "decoupled"


def test_a_whole_number_is_fine_where_any_number_is():
    assert OneCycleConfig.model_validate({"div": 25}).div == 25.0
    assert StageConfig.model_validate(a_stage(lr=1)).lr == LearningRate(1.0)


@pytest.mark.parametrize(
    ("written", "rate"),
    [
        (1e-3, LearningRate(1e-3)),
        ("slice(1e-3)", LearningRate(1e-3, sliced=True)),
        ("slice(1e-5, 1e-3)", LearningRate(1e-3, first=1e-5, sliced=True)),
        ("slice(1.23456789e-5, 1e-3)", LearningRate(1e-3, first=1.23456789e-5, sliced=True)),
        ("slice(auto/49, auto)", LearningRate(1.0, first=1 / 49, sliced=True, auto=True)),
    ],
)
def test_the_rate_of_a_stage_is_read_once_and_dumps_as_it_can_be_written(
    written: float | str, rate: LearningRate
):
    stage = StageConfig.model_validate(a_stage(lr=written))
    assert stage.lr == rate
    assert StageConfig.model_validate(a_stage(lr=rate)) == stage
    for dumped in (stage.model_dump(), stage.model_dump(mode="json"), json.loads(stage.model_dump_json())):
        assert isinstance(dumped["lr"], float if isinstance(written, float) else str)
        assert parse_lr(dumped["lr"]) == rate
        assert StageConfig.model_validate(dumped) == stage


@pytest.mark.parametrize("written", [{"last": 1e-3}, [1e-3], True, None])
def test_a_rate_is_a_number_or_text_and_not_the_parts_of_one(written: object):
    with pytest.raises(ValidationError, match=r"expected a rate such as 1e-3, slice\(1e-3\)"):
        StageConfig.model_validate(a_stage(lr=written))


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("1e-3", "'1e-3' is not a rate; write 1e-3"),
        ("slice(1e-3, 1e-5)", "goes down"),
        ("slice(0, 1e-3)", "must be positive"),
        (0, "must be positive"),
        (-1e-3, "must be positive"),
        (math.nan, "must be positive and finite"),
        (True, "expected a rate such as 1e-3"),
        (None, "expected a rate such as 1e-3"),
        ([1e-3], "expected a rate such as 1e-3"),
        (10**400, "fits a floating-point number"),
    ],
)
def test_a_rate_that_cannot_be_is_refused(written: object, message: str):
    with pytest.raises(ValidationError, match=message):
        StageConfig.model_validate(a_stage(lr=written))


@pytest.mark.parametrize("val", ["auto", "val", "hold-out", "2024", 0.2, 0.999])
def test_validation_is_auto_a_fraction_or_a_folder(val: float | str):
    assert DataConfig.model_validate({"path": "x", "val": val}).val == val


@pytest.mark.parametrize(
    ("val", "message"),
    [
        (0, "between 0 and 1"),
        (1, "between 0 and 1"),
        (1.5, "between 0 and 1"),
        (math.nan, "between 0 and 1"),
        ("0.2", "without quotes"),
        ("20 %", "without quotes"),
        ("", "name of a folder"),
        ("..", "name of a folder"),
        ("../other", "name of a folder"),
        (True, "name of a folder"),
        (None, "name of a folder"),
    ],
)
def test_validation_that_cannot_be_is_refused(val: object, message: str):
    with pytest.raises(ValidationError, match=message):
        DataConfig.model_validate({"path": "x", "val": val})


def test_dropout_follows_the_number_of_hidden_layers_unless_it_is_given():
    assert HeadConfig().dropout == (0.25, 0.5)
    assert HeadConfig(hidden=()).dropouts == (0.5,)
    assert HeadConfig(hidden=(64, 32)).dropouts == (0.25, 0.25, 0.5)
    assert HeadConfig(hidden=(64, 32), dropout=0.1).dropouts == (0.1, 0.1, 0.1)
    assert HeadConfig.model_validate({"hidden": [64], "dropout": [0, 0.1]}).dropouts == (0.0, 0.1)


def test_a_list_of_dropouts_must_fit_the_hidden_layers():
    with pytest.raises(ValidationError, match="has 2 numbers for 2 hidden layers; expected 3"):
        HeadConfig.model_validate({"hidden": [64, 32], "dropout": [0.1, 0.2]})
    with pytest.raises(ValidationError, match="from 0 up to but not including 1"):
        HeadConfig.model_validate({"dropout": 1})


@pytest.mark.parametrize("train", ["body", 0, -1, 1.0, True, "2", None, ["head"]])
def test_a_stage_trains_the_head_all_or_some_last_groups(train: object):
    with pytest.raises(ValidationError, match="expected head, all, or a number of last layer groups"):
        StageConfig.model_validate(a_stage(train=train))


def test_a_stage_cannot_train_more_groups_than_there_are():
    assert a_config(model={"layer_groups": 4}, stages=[a_stage(train=4)]).stages[0].train == 4
    with pytest.raises(ConfigError, match=r"4 is more than model.layer_groups \(3\); write all, or less"):
        a_config(stages=[a_stage(train=4)])


def test_names_of_stages_are_unique():
    with pytest.raises(ConfigError, match=r"stages\[1\].name: 'frozen' is also the name of stages\[0\]"):
        a_config(stages=[a_stage(), a_stage(train="all")])


@pytest.mark.parametrize("name", ["", "Frozen", "a b", "../x", "a" * 65, 1, None])
def test_the_name_of_a_stage_can_be_part_of_a_file_name(name: object):
    with pytest.raises(ValidationError, match="expected a name of 1 to 64 characters from a-z"):
        StageConfig.model_validate(a_stage(name=name))


def test_there_is_at_least_one_stage():
    with pytest.raises(ConfigError, match="expected a list of at least one stage"):
        a_config(stages=[])


@pytest.mark.parametrize("colour", ["white", "#fff", "#gggggg", None, 0xFFFFFF])
def test_a_background_is_a_quoted_colour(colour: object):
    with pytest.raises(ValidationError, match='expected a colour such as "#ffffff"; put it in quotes'):
        DataConfig.model_validate({"path": "x", "background": colour})


@pytest.mark.parametrize("workers", [-1, 1.0, "4", True, None])
def test_workers_are_auto_or_a_number(workers: object):
    assert DataConfig(path="x", workers=0).workers == 0
    with pytest.raises(ValidationError, match="expected auto or a whole number"):
        DataConfig.model_validate({"path": "x", "workers": workers})


def test_every_key_is_documented():
    sections: list[type] = [Config]
    for section in sections:
        for name, field in section.model_fields.items():
            assert key_docstrings(section).get(name), f"{section.__name__}.{name}"
            inner = StageConfig if name == "stages" else field.annotation
            if isinstance(inner, type) and issubclass(inner, (*Config.__bases__,)):
                sections.append(inner)
    assert {ModelConfig, HeadConfig, StageConfig} <= set(sections)


def test_a_config_survives_json_without_a_warning():
    config = a_config(model={"head": {"hidden": [8, 8], "dropout": 0.1}})
    assert Config.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    "module", ["config.config", "config.load", "config.reference", "commands.init", "cli"]
)
def test_configs_are_read_before_torch_is(module: str):
    program = (
        f"import sys, finetune.{module}; print(*(sys.modules.keys() & {{'torch', 'torchvision', 'fastai'}}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
