"""Questions about images from Python: the same answers as those of the commands."""

import json

import pytest
from conftest import run_finetune, write_small_config

import finetune


@pytest.fixture
def config(images, tmp_path):
    return write_small_config(tmp_path, images)


def by_command(*arguments):
    result = run_finetune(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_each_answers_as_its_command_does(config):
    pytest.importorskip("cleanlab")
    for name in ("labels", "curve"):
        answer = getattr(finetune, name)(config, data__batch_size=4, quiet=True)
        assert answer.to_dict() == by_command(name, config, "data.batch_size=4")
    report = finetune.check(config, overrides={"data.batch_size": 4}, quiet=True)
    expected = by_command("check", config, "data.batch_size=4")
    assert report.to_dict(strict=False)["findings"] == expected["findings"]
    weights = ("model__weights", "builtin:glyphs")
    ranking = finetune.rank(config, ["shufflenet_v2_x0_5"], quiet=True, **dict([weights]))
    (best,) = by_command("rank", config, "shufflenet_v2_x0_5", "model.weights=builtin:glyphs")
    assert (ranking.best.arch, ranking.best.score) == (best["arch"], best["accuracy"])


@pytest.mark.parametrize("name", ["check", "rank", "labels", "curve"])
def test_mistakes_are_told_as_python_writes_them(name, config):
    ask = getattr(finetune, name)
    with pytest.raises(finetune.ConfigError, match=r"keyword 'quit'.*did you mean 'quiet'"):
        ask(config, quit=True)
    with pytest.raises(finetune.ConfigError, match=r"keyword 'data__batch_size' data.batch_size: expected"):
        ask(config, data__batch_size=0)


def test_auto_wants_data_and_no_config(config):
    with pytest.raises(finetune.ConfigError, match="expected a folder or table of images"):
        finetune.auto(config)
