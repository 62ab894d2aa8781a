"""Which weights are on this machine: packages and caches are looked into, nothing is fetched."""

import pytest
import torch
import torchvision

from finetune.model import at_hand
from finetune.model.architecture import Architecture
from finetune.model.catalogue import find_architecture, weights_enum
from finetune.model.download import cached_path


@pytest.fixture
def bare(hub_folder, monkeypatch, tmp_path):
    """Return torch's empty cache, on a machine without packages of weights and with an empty hub cache."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(at_hand, "PACKAGES", ())
    monkeypatch.setattr("finetune.packaged_weights.PACKAGES", ())
    hub_folder.mkdir(parents=True)
    return hub_folder


def put(arch: str, weights: str) -> None:
    """Put a file into torch's cache under the name of published weights."""
    model = torchvision.models.get_model(arch)
    torch.save(model.state_dict(), cached_path(weights_enum(arch)[weights].url))


def found() -> dict[str, str]:
    return {arch.name: weights for arch, weights in at_hand.architectures_at_hand()}


def test_nothing_is_at_hand_on_a_bare_machine(bare):
    assert found() == {}
    assert at_hand.weights_at_hand(find_architecture("resnet34")) is None


def test_files_in_torchs_cache_are_found_also_of_weights_that_are_not_the_default(bare):
    put("squeezenet1_1", "DEFAULT")
    put("mobilenet_v3_large", "IMAGENET1K_V1")
    assert found() == {"squeezenet1_1": "default", "mobilenet_v3_large": "IMAGENET1K_V1"}


def test_folders_of_the_hubs_cache_are_found_by_their_tag(bare, tmp_path):
    pytest.importorskip("timm")
    for name in ("test_resnet.r160_in1k", "no_such_network.in1k", "test_vit.r160_in1k"):
        snapshot = tmp_path / "hub-cache" / f"models--timm--{name}" / "snapshots" / "abc"
        snapshot.mkdir(parents=True)
        (snapshot.parents[1] / "refs").mkdir()
        (snapshot.parents[1] / "refs" / "main").write_text("abc")
        if "vit" not in name:  # of which the download was broken off
            (snapshot / "model.safetensors").write_bytes(b"weights")
    assert found() == {"timm:test_resnet.r160_in1k": "default"}
    assert at_hand.weights_at_hand(find_architecture("timm:test_resnet")) == "default"


def test_an_architecture_without_weights_has_none_at_hand(bare):
    pytest.importorskip("timm")
    bare_network = Architecture("timm:test_resnet", "resnet", None, 160, (), None)
    assert at_hand.weights_at_hand(bare_network) is None
    from finetune.model.timm_catalogue import timm_architectures

    without = next(arch for arch in timm_architectures("timm:resnet*") if not arch.weights)
    assert at_hand.weights_at_hand(without) is None
