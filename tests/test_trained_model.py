"""A run as a start for another: its backbone, preprocessing and classes, read in one way and checked."""

import json

import pytest
import torch
from conftest import rewrite

from finetune.errors import CheckpointError, ConfigError, WeightsError
from finetune.experiment.model import find_weights
from finetune.model import ModelSpec, build_classifier
from finetune.runs import create_run


def save_run(model, folder):
    with create_run(folder, parent=folder.parent, name="run") as run:
        run.save_model(model.state_dict(), {"format": 3, "model": model.spec.to_dict()})
    return folder


def build(arch="resnet18", image_size=96):
    spec = ModelSpec(arch, classes=3, image_size=image_size)
    return build_classifier(spec, weights="none", seed=1)


@pytest.mark.parametrize("arch", ["resnet18", pytest.param("vit_b_32", marks=pytest.mark.slow)])
def test_the_backbone_of_an_earlier_run_is_a_start(tmp_path, arch):
    earlier = build(arch)
    with torch.no_grad():
        for parameter in earlier.parameters():
            parameter.add_(0.01)
    weights = find_weights(str(save_run(earlier, tmp_path / "run")), arch)
    model = build_classifier(ModelSpec(arch, classes=5), weights=weights, seed=3, say=pytest.fail)
    assert model.preprocessing == earlier.preprocessing
    ours, theirs = model.backbone.state_dict(), earlier.backbone.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert model.head.layers[-1].out_features == 5


def test_a_run_of_another_architecture_or_none_at_all_is_refused(tmp_path):
    folder = save_run(build(), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"trained resnet18, not resnet34; set model.arch: resnet18"):
        find_weights(str(folder), "resnet34")
    with pytest.raises(WeightsError, match=r"is not a run folder: it has no model\.json"):
        find_weights(str(tmp_path), "resnet18")


def test_weights_that_are_no_folder_are_left_to_the_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "default").mkdir()
    for name in ("default", "none", "builtin:glyphs", "IMAGENET1K_V1", "mine.pth"):
        assert find_weights(name, "resnet18") == name


def test_a_description_that_says_nothing_possible_is_refused(tmp_path):
    folder = save_run(build(), tmp_path / "run")
    rewrite(folder, "model.json", lambda document: document.update(model={}))
    with pytest.raises(CheckpointError, match=r"model: fields that are missing or unknown"):
        find_weights(str(folder), "resnet18")
    assert json.loads((folder / "model.json").read_text())["format"] == 3


@pytest.mark.slow
def test_position_embeddings_of_a_run_are_interpolated(tmp_path):
    weights = find_weights(str(save_run(build("vit_b_32", 64), tmp_path / "run")), "vit_b_32")
    spec = ModelSpec("vit_b_32", classes=3, image_size=128)
    model = build_classifier(spec, weights=weights, seed=1)
    assert model.backbone.encoder.tokens.pos_embedding.shape == (1, 17, 768)
