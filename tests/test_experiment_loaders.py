"""Stages that train on images of their own size, while validation and the saved model keep the model's."""

import importlib.util
import json
import os
import re

import pytest
import torch
from conftest import run_finetune, write_small_config
from run_result import result_of
from several import draw_several
from test_resume import as_if_killed_at

from finetune.commands.check.stage_cost import measure_stage_costs, stage_cost_loaders
from finetune.commands.evaluate.evaluate import evaluate_split, own_index
from finetune.config.load import load_config
from finetune.experiment.build import build_experiment
from finetune.experiment.loaders import StageLoaders, build_loaders
from finetune.experiment.lr_search import find_lr
from finetune.experiment.read_data import read_data
from finetune.progress import no_bar
from finetune.runs.trained_model import load_trained

SIZED = ("stages.frozen.image_size=16", "stages.unfrozen.image_size=48")
FAST = ("lr_finder.steps=20", "lr_finder.race_steps=4", "lr_finder.start=1e-5")


def experiment_of(folder, path, *overrides):
    config = load_config(write_small_config(folder, path), [*FAST, *overrides])
    return build_experiment(config, torch.device("cpu"), read_data(config))


def sizes_that_enter(model):
    """Return a set that gathers the sides of images that enter a model, in training mode and in eval mode."""
    seen = set()
    model.backbone.register_forward_pre_hook(
        lambda module, args: seen.add((model.training, args[0].shape[-1]))
    )
    return seen


def test_training_images_have_the_size_of_the_stage_and_validation_images_that_of_the_model(images, tmp_path):
    loaders = StageLoaders(experiment_of(tmp_path, images, *SIZED))
    for number, size in enumerate([16, 48]):
        of_stage = loaders.of_stage(number)
        of_stage.train.sampler.start_epoch(number, 0)
        assert {tuple(batch[0].shape[1:]) for batch in of_stage.train} == {(3, size, size)}
        assert {tuple(batch[0].shape[1:]) for batch in of_stage.val} == {(3, 32, 32)}


def test_photographs_are_decoded_as_large_as_the_stage_needs_them(images, tmp_path):
    experiment = experiment_of(tmp_path, images, *SIZED)
    smaller, larger = (build_loaders(experiment, number).train.dataset.transform for number in (0, 1))
    own = StageLoaders(experiment).of_stage(0).val.dataset.transform
    assert smaller.shrink_to * 2 == own.shrink_to
    assert larger.shrink_to * 2 == own.shrink_to * 3


def test_stages_of_one_size_share_their_loaders(images, tmp_path):
    loaders = StageLoaders(experiment_of(tmp_path, images, "stages.frozen.image_size=32"))
    first, second = loaders.of_stage(0), loaders.of_stage(1)
    assert first.train is second.train
    assert first.val is second.val


def test_scores_and_the_saved_model_are_of_the_models_own_size(images, tmp_path):
    config, run = write_small_config(tmp_path, images), tmp_path / "run"
    result = run_finetune("train", config, *SIZED, "--run-dir", run)
    assert result.exit_code == 0, result.output
    assert "trained at 16 px" in result.stdout
    assert "trained at 48 px" in result.stdout
    trained = load_trained(run, torch.device("cpu"))
    assert trained.model.preprocessing.image_size == 32
    report = json.loads((run / "report.json").read_text())
    scores = evaluate_split(trained, own_index(trained), "val", no_bar)
    assert scores.loss == report["best"]["val_loss"]


def test_the_models_own_size_changes_nothing(images, tmp_path):
    config = write_small_config(tmp_path, images)
    own = ("stages.frozen.image_size=32", "stages.unfrozen.image_size=32")
    for name, overrides in {"without": (), "own": own, "other": SIZED}.items():
        result = run_finetune("train", config, *overrides, "--run-dir", tmp_path / name)
        assert result.exit_code == 0, result.output
    weights = {
        name: (tmp_path / name / "model.safetensors").read_bytes() for name in ("without", "own", "other")
    }
    assert weights["without"] == weights["own"]
    assert weights["without"] != weights["other"]


@pytest.mark.slow
def test_a_run_goes_on_bit_for_bit_in_and_between_stages_of_other_sizes(images, tmp_path):
    config, whole = write_small_config(tmp_path, images), tmp_path / "whole"
    often = ("checkpoint.every=1", "checkpoint.keep=1000", *FAST, "stages.unfrozen.lr=slice(auto/100, auto)")
    result = run_finetune("train", config, *SIZED, *often, "--run-dir", whole)
    assert result.exit_code == 0, result.output
    names = sorted(os.listdir(whole / "checkpoints"))
    expected = result_of(whole)
    of_second = [name for name in names if name.startswith("01")]
    for name in (names[1], next(reversed([n for n in names if n not in of_second])), of_second[2]):
        run = tmp_path / name
        as_if_killed_at(name, whole, run)
        result = run_finetune("train", "--resume", run)
        assert result.exit_code == 0, result.output
        assert result_of(run) == expected, name
    result = run_finetune("train", "--resume", whole, "stages.unfrozen.image_size=40")
    assert "stages.1.image_size: 48, now 40" in result.output


@pytest.mark.parametrize(("number", "size"), [(0, 16), (1, 48)], ids=["cached features", "whole model"])
def test_the_finder_of_a_stage_trains_at_its_size_and_judges_at_the_models(images, tmp_path, number, size):
    experiment = experiment_of(tmp_path, images, *SIZED)
    seen = sizes_that_enter(experiment.model)
    find_lr(experiment, number, build_loaders(experiment, number))
    training = number == 1  # under a frozen backbone all features are computed beforehand, also those of val
    assert seen >= {(training, size), (False, 32)} if training else {one for _, one in seen} == {size, 32}


@pytest.mark.slow
def test_lr_find_sweeps_a_stage_at_its_size(images, tmp_path):
    config = write_small_config(tmp_path, images)
    curves = []
    for overrides in ((), SIZED):
        arguments = ("lr-find", config, "--stage", "unfrozen", "--json", *FAST, *overrides)
        curves.append(json.loads(run_finetune(*arguments).stdout)["curve"]["loss"])
    assert curves[0] != curves[1]


def test_check_tries_each_stage_at_its_size(images, tmp_path):
    experiment = experiment_of(tmp_path, images, *SIZED)
    loaders = stage_cost_loaders(experiment)
    for number, size in enumerate([16, 48]):
        seen = sizes_that_enter(experiment.model)
        cost = measure_stage_costs(experiment, number, loaders.of_stage(number))
        assert cost.image_size == size
        assert seen >= {(True, size), (False, 32)}
    result = run_finetune("check", write_small_config(tmp_path, images), *SIZED, "--json")
    stages = json.loads(result.stdout)["plan"]["stages"]
    assert [stage["image_size"] for stage in stages] == [16, 48]


def test_images_with_several_classes_and_metadata_train_at_any_size(tmp_path):
    config = write_small_config(tmp_path, draw_several(tmp_path / "images", each=4))
    several = ("data.label_separator=;", "data.columns.label=label", "data.columns.metadata=[red]")
    result = run_finetune("train", config, *several, *SIZED, "--run-dir", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert 0 < json.loads((tmp_path / "run" / "report.json").read_text())["best"]["val_map"] <= 1


TIMM = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="needs timm")


@pytest.mark.parametrize(
    ("arch", "size", "reason"),
    [
        ("vit_b_16", 160, "takes images of one size only, here 224 pixels, not 160"),
        ("maxvit_t", 448, "takes images of one size only, here 224 pixels, not 448"),
        ("alexnet", 32, "needs images of at least 63 pixels, not 32"),
        pytest.param("timm:deit_tiny_patch16_224", 160, r".*Input height \(160\) doesn't match", marks=TIMM),
        pytest.param("timm:mixer_b16_224", 128, "cannot take images of 128 pixels", marks=TIMM),
    ],
)
def test_sizes_that_a_network_cannot_take_are_refused_before_a_download(
    images, tmp_path, hub_folder, arch, size, reason
):
    config = write_small_config(tmp_path, images)
    overrides = [f"model.arch={arch}", "model.weights=default", "data.image_size=null"]
    sized = f"stages.unfrozen.image_size={size}"
    result = run_finetune("train", config, *overrides, sized, "--run-dir", tmp_path / "run")
    assert result.exit_code == 2, result.output
    text = " ".join(result.stderr.split())
    assert re.search(rf"stages\.unfrozen\.image_size: {arch}.*{reason}", text), text
    assert len(result.stderr.splitlines()) <= 3
    assert not hub_folder.exists()


def test_a_network_of_one_size_takes_that_size(images, tmp_path):
    experiment = experiment_of(
        tmp_path, images, "model.arch=vit_b_32", "model.weights=none", "stages.frozen.image_size=32"
    )
    assert experiment.model.preprocessing.image_size == 32


@TIMM
def test_a_convolutional_network_of_timm_takes_another_size(images, tmp_path):
    overrides = ("model.arch=timm:tf_efficientnet_lite0", "model.weights=none", *SIZED)
    assert experiment_of(tmp_path, images, *overrides).config.stages[1].image_size == 48
