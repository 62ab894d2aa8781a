"""Weights of timm's architectures: from packages, from the caches under the right names, and from files."""

import json
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

timm = pytest.importorskip("timm")

from finetune.errors import ConfigError, WeightsError  # noqa: E402
from finetune.model import timm_weights  # noqa: E402
from finetune.model.catalogue import find_architecture  # noqa: E402
from finetune.model.classifier import build_classifier  # noqa: E402
from finetune.model.spec import ModelSpec  # noqa: E402
from finetune.model.timm_weights import find_timm_weights, preprocessing_of  # noqa: E402
from finetune.model.weights import load_weights, pending_download  # noqa: E402

REPOSITORY = "timm/test_resnet.r160_in1k"


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """Return an empty cache of the hub, which cannot be reached."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def put(hub: Path, name: str, write) -> Path:
    """Put a file into the cache of the hub, as the hub's own library lays it out."""
    folder = hub / f"models--{REPOSITORY.replace('/', '--')}"
    snapshot = folder / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    snapshot.mkdir(parents=True, exist_ok=True)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(snapshot.name)
    write(snapshot / name)
    return snapshot / name


def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return timm.create_model("test_resnet").state_dict()


def config(architecture: str = "test_resnet") -> str:
    cfg = {"input_size": [3, 96, 96], "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7], "crop_pct": 0.75}
    cfg |= {"interpolation": "bilinear", "num_classes": 1000, "classifier": "fc", "first_conv": "conv1.0"}
    return json.dumps({"architecture": architecture, "num_classes": 1000, "pretrained_cfg": cfg})


@pytest.mark.parametrize("name", ["default", "r160_in1k"])
def test_weights_in_the_hubs_cache_are_used_without_the_network(hub, name):
    arch, tensors = find_architecture("timm:test_resnet"), state()
    put(hub, "model.safetensors", lambda path: save_file(tensors, path))
    assert pending_download(name, arch) is None
    model = build_classifier(ModelSpec(arch.name, classes=3), weights=name, seed=1, say=pytest.fail)
    ours = model.backbone.network.state_dict()
    assert all(torch.equal(tensor, tensors[key]) for key, tensor in ours.items())


def test_images_enter_the_weights_as_timm_says():
    cfg = timm.get_pretrained_cfg("tf_efficientnet_lite2")
    found = preprocessing_of(cfg)
    assert (found.image_size, found.resize_size) == (260, int(260 / 0.89))
    assert (found.mean, found.std, found.interpolation) == ((0.5,) * 3, (0.5,) * 3, "bicubic")
    assert load_weights("none", find_architecture("timm:tf_efficientnet_lite2")).preprocessing == found


def test_weights_of_the_hub_can_be_named_and_bring_their_preprocessing(hub):
    arch, tensors = find_architecture("timm:test_resnet"), state()
    name = f"hf-hub:{REPOSITORY}"
    assert pending_download(name, arch) is not None
    put(hub, "model.safetensors", lambda path: save_file(tensors, path))
    assert pending_download(name, arch) is not None
    put(hub, "config.json", lambda path: path.write_text(config()))
    assert pending_download(name, arch) is None
    found = load_weights(name, arch, pytest.fail)
    assert (found.preprocessing.image_size, found.preprocessing.resize_size) == (96, 128)
    assert found.preprocessing.mean == (0.1, 0.2, 0.3)
    assert found.origin == name
    put(hub, "config.json", lambda path: path.write_text(config("resnet18")))
    with pytest.raises(ConfigError, match=r"holds weights of timm:resnet18.*set model.arch: timm:resnet18"):
        load_weights(name, arch, pytest.fail)
    put(hub, "config.json", lambda path: path.write_text("[1]"))
    with pytest.raises(WeightsError, match=r"no config of timm's weights"):
        load_weights(name, arch, pytest.fail)


def test_without_a_network_the_folder_is_named_and_how_to_fill_it(hub):
    said: list[str] = []
    with pytest.raises(WeightsError) as error:
        load_weights("default", find_architecture("timm:test_resnet"), said.append)
    first, second = str(error.value).splitlines()
    assert f"hf-hub:{REPOSITORY} are not in {hub / 'models--timm--test_resnet.r160_in1k'}" in first
    assert f"`hf download {REPOSITORY}`" in second
    assert said == [f"fetching hf-hub:{REPOSITORY}"]
    assert error.value.exit_code == 7


def test_an_unknown_name_server_is_answered_at_once(hub, monkeypatch, capfd):
    from huggingface_hub import constants

    def unknown(*_arguments):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(timm_weights, "getproxies", dict)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(WeightsError, match=r"cannot be fetched \(\[Errno -2\] Name or service not known\)"):
        load_weights("default", find_architecture("timm:test_resnet"), lambda _: None)
    assert capfd.readouterr() == ("", "")  # nor does the hub's library say anything


def test_a_file_of_weights_is_loaded_and_named_if_it_is_damaged(hub, tmp_path):
    arch, tensors = find_architecture("timm:test_resnet"), state()
    torch.save(tensors, tmp_path / "mine.pth")
    said: list[str] = []
    model = build_classifier(
        ModelSpec(arch.name, classes=3), weights=str(tmp_path / "mine.pth"), seed=1, say=said.append
    )
    assert torch.equal(model.backbone.network.bn1.weight, tensors["bn1.weight"])
    assert "does not say how its images were normalised" in said[0]
    path = put(hub, "model.safetensors", lambda path: path.write_bytes(b"{}"))
    with pytest.raises(WeightsError, match=f"{path} is damaged.*Delete it, and it is fetched again"):
        load_weights("default", arch)


def test_names_that_there_are_not_are_answered_with_those_that_are():
    arch = find_architecture("timm:test_resnet")
    with pytest.raises(ConfigError, match=r"has no weights called 'V9'; there is default, r160_in1k"):
        load_weights("V9", arch)
    with pytest.raises(ConfigError, match=r"is not hf-hub:OWNER/NAME"):
        load_weights("hf-hub:one", arch)
    with pytest.raises(WeightsError, match=r"there is no file or run folder some/where"):
        load_weights("some/where", arch)
    with pytest.raises(ConfigError, match=r"timm has no weights for efficientnet_lite1"):
        find_timm_weights("default", find_architecture("timm:efficientnet_lite1"))


@pytest.mark.parametrize("prefix", ["model.", "net.backbone.", "module._orig_mod.", "encoder."])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_any_prefix_is_dropped_and_named(tmp_path, prefix, suffix):
    tensors, arch = state(), "timm:test_resnet"
    named = {f"{prefix}{name}": t.half() for name, t in tensors.items() if not name.startswith("fc.")}
    path = tmp_path / f"mine{suffix}"
    save_file(named, path) if suffix == ".safetensors" else torch.save({"state_dict": named}, path)
    said: list[str] = []
    model = build_classifier(ModelSpec(arch, classes=3), weights=str(path), seed=1, say=said.append)
    ours = model.backbone.network.state_dict()
    assert all(torch.equal(tensor, tensors[key].half().to(tensor.dtype)) for key, tensor in ours.items())
    assert said[1:] == [
        f"mine{suffix}: names read without the prefix {prefix!r}; "
        "it holds no classifier, and none is needed: the head is new."
    ]


def test_names_that_timm_converts_may_have_a_prefix_of_pytorch_too(tmp_path):
    """Here the names of facebook's own DINO, whose checkpoints wrap a network for several devices."""
    network = timm.create_model("deit_tiny_distilled_patch16_224")
    theirs = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    theirs["module.dist_token"] = theirs["module.dist_token"] * 0
    torch.save({"model": theirs}, tmp_path / "dino.pth")
    said: list[str] = []
    spec = ModelSpec("timm:deit_tiny_distilled_patch16_224", classes=3)
    model = build_classifier(spec, weights=str(tmp_path / "dino.pth"), seed=1, say=said.append)
    assert not model.backbone.network.dist_token.any()
    assert "without the prefix 'module.'" in said[1]


@pytest.mark.slow
def test_another_of_timms_architectures_is_named(tmp_path):
    tensors = timm.create_model("test_resnet").state_dict()
    torch.save({f"net.{name}": tensor for name, tensor in tensors.items()}, tmp_path / "mine.pth")
    spec = ModelSpec("timm:resnet18", classes=3)
    with pytest.raises(
        WeightsError, match=r"It looks like timm:test_resnet: set model.arch: timm:test_resnet"
    ):
        build_classifier(spec, weights=str(tmp_path / "mine.pth"), seed=1, say=lambda _: None)
