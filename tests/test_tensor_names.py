"""Any prefix whose removal makes all names fit is dropped, and said; files of real networks."""

import argparse
import shlex
import subprocess
import sys

import pytest
import torch
from conftest import some_quick
from safetensors.torch import save_file
from torch import nn
from torchvision.models import get_model

from finetune.errors import WeightsError
from finetune.model.classifier import build_classifier
from finetune.model.spec import ModelSpec
from finetune.model.tensor_names import find_reading, namings, own_naming

SMALL = (
    "squeezenet1_1",
    "shufflenet_v2_x0_5",
    "mobilenet_v3_small",
    "mnasnet0_5",
    "regnet_y_400mf",
    "resnet18",
)
PREFIXES = (
    "_orig_mod.",
    "model.",
    "module.",
    "net.backbone.",
    "module._orig_mod.",
    "a.b.c.d.e.",
    "0.",
    "Fc.",
)


def network(name, *, seed=3):
    torch.manual_seed(seed)
    return get_model(name, weights=None)


def build(path, arch, said=None):
    """Build a model with a file of weights; `said` gets what is said of its names."""
    spec = ModelSpec(arch, classes=3, image_size=96)
    lines = []
    model = build_classifier(spec, weights=str(path), seed=1, say=lines.append)
    if said is not None:
        said += [line for line in lines if "does not say how its images were normalised" not in line]
    return model


def assert_has(model, state):
    """Assert that a backbone holds the tensors of torchvision's network, wherever it has them."""
    ours = model.backbone.state_dict()
    theirs = {id(tensor): tensor for tensor in state.values()}.values()
    assert ours
    for name, tensor in ours.items():
        assert any(tensor.shape == other.shape and torch.equal(tensor, other) for other in theirs), name


@pytest.mark.parametrize("arch", SMALL)
@pytest.mark.parametrize("suffix", some_quick([".pth", ".safetensors"], ".pth"))
def test_any_prefix_is_dropped_and_named(tmp_path, arch, suffix):
    state = network(arch).state_dict()
    for number, prefix in enumerate(PREFIXES if arch == SMALL[0] else PREFIXES[3:5]):
        path = tmp_path / f"{number}{suffix}"
        named = {prefix + name: tensor for name, tensor in state.items()}
        save_file(named, path) if suffix == ".safetensors" else torch.save(named, path)
        said = []
        assert_has(build(path, arch, said), state)
        assert said == [f"{number}{suffix}: names read without the prefix {prefix!r}."]


@pytest.mark.parametrize("arch", SMALL)
def test_a_backbone_alone_is_enough(tmp_path, arch):
    state = network(arch).state_dict()
    tops = ("fc.", "classifier.")
    alone = {f"backbone.{name}": t for name, t in state.items() if not name.startswith(tops)}
    torch.save({"state_dict": alone, "epoch": 3}, tmp_path / "alone.pth")
    said = []
    assert_has(build(tmp_path / "alone.pth", arch, said), state)
    assert said == [
        "alone.pth: names read without the prefix 'backbone.'; "
        "it holds no classifier, and none is needed: the head is new."
    ]


def test_what_stands_beside_the_backbone_is_left_out_and_said(tmp_path):
    state = {f"backbone.{name}": t for name, t in network("shufflenet_v2_x0_5").state_dict().items()}
    torch.save(
        {**state, "projector.0.weight": torch.zeros(2), "queue": torch.zeros(3)}, tmp_path / "moco.pth"
    )
    said = []
    build(tmp_path / "moco.pth", "shufflenet_v2_x0_5", said)
    assert said == [
        "moco.pth: names read without the prefix 'backbone.'; "
        "2 tensors beside it left out, such as projector.0.weight."
    ]


@pytest.mark.parametrize("arch", ["resnet18", "shufflenet_v2_x0_5", "mobilenet_v3_small", "densenet121"])
def test_a_backbone_made_of_the_networks_parts_is_read_by_their_position(tmp_path, arch):
    whole = network(arch)
    state = whole.state_dict()
    parts = nn.Sequential(*list(whole.children())[:-1])
    torch.save({f"backbone.{name}": t for name, t in parts.state_dict().items()}, tmp_path / "lightly.pth")
    said = []
    assert_has(build(tmp_path / "lightly.pth", arch, said), state)
    assert "'backbone.'; its tensors are named by the position of their layers; it holds no" in said[0]


def test_the_features_alone_may_lack_their_name(tmp_path):
    whole = network("mobilenet_v3_small")
    torch.save(whole.features.state_dict(), tmp_path / "features.pth")
    said = []
    assert_has(build(tmp_path / "features.pth", "mobilenet_v3_small", said), whole.state_dict())
    assert said[0].startswith(
        "features.pth: it holds what the network calls features; it holds no classifier"
    )


@pytest.mark.parametrize("suffix", some_quick([".pth", ".safetensors"], ".safetensors"))
def test_two_networks_in_one_file_are_asked_about(tmp_path, suffix):
    state = network("squeezenet1_1").state_dict()
    both = {f"{name}.{key}": t.clone() for name in ("encoder_q", "encoder_k") for key, t in state.items()}
    path = tmp_path / f"mo co{suffix}"
    save_file(both, path) if suffix == ".safetensors" else torch.save({"state_dict": both}, path)
    with pytest.raises(WeightsError, match="holds 2 networks that fit, under the prefixes encoder_") as e:
        build(path, "squeezenet1_1")
    # The command that it gives does what it says.
    _, dash_c, code = shlex.split(str(e.value).splitlines()[1].partition(": ")[2])
    assert dash_c == "-c"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert_has(build(f"one{suffix}", "squeezenet1_1"), state)


def test_half_precision_is_read_counters_too(tmp_path):
    state = network("shufflenet_v2_x0_5").state_dict()
    for name in state:
        if name.endswith("num_batches_tracked"):
            state[name].fill_(1_234)
    half = {name: tensor.half() for name, tensor in state.items()}
    half["conv1.1.num_batches_tracked"].fill_(float("inf"))  # 65504 is the largest number of half precision
    for kind, convert in (("half", torch.Tensor.half), ("bfloat16", torch.Tensor.bfloat16), ("double", None)):
        tensors = half if convert is None else {name: convert(t) for name, t in half.items()}
        tensors = {name: t.double() for name, t in tensors.items()} if convert is None else tensors
        torch.save(tensors, tmp_path / f"{kind}.pth")
        backbone = build(tmp_path / f"{kind}.pth", "shufflenet_v2_x0_5").backbone
        kinds = {tensor.dtype for tensor in backbone.state_dict().values()}
        assert kinds == {torch.float32, torch.int64}
        own = backbone.state_dict()
        assert own["conv1.1.num_batches_tracked"] == 0
        assert own["stage2.0.branch1.1.num_batches_tracked"] == (1_232 if kind == "bfloat16" else 1_234)
        expected = tensors["conv1.0.weight"].float()
        assert torch.equal(own["conv1.0.weight"], expected)


@pytest.mark.slow
def test_half_precision_does_not_spoil_the_index_of_windows(tmp_path):
    state = network("swin_v2_t").state_dict()
    torch.save({name: tensor.bfloat16() for name, tensor in state.items()}, tmp_path / "half.pth")
    spec = ModelSpec("swin_v2_t", classes=3)
    own = build_classifier(spec, weights=str(tmp_path / "half.pth"), seed=1, say=lambda _: None)
    index = [t for name, t in own.backbone.state_dict().items() if name.endswith("relative_position_index")]
    theirs = [t for name, t in state.items() if name.endswith("relative_position_index")]
    assert index
    assert all(torch.equal(ours, other) for ours, other in zip(index, theirs, strict=True))


def test_checkpoints_of_training_scripts_are_read_as_they_are(tmp_path):
    """torchvision's and timm's own keep their command line, the optimizer and an average beside it."""
    whole = network("squeezenet1_1")
    optimizer = torch.optim.SGD(whole.parameters(), lr=0.1, momentum=0.9)
    sum(p.sum() for p in whole.parameters()).backward()
    optimizer.step()
    rest = {"optimizer": optimizer.state_dict(), "epoch": 7, "args": argparse.Namespace(lr=0.1, name="x")}
    average = {"n_averaged": torch.tensor(3), **{f"module.{n}": t * 0 for n, t in whole.state_dict().items()}}
    torch.save({"model": whole.state_dict(), "model_ema": average, **rest}, tmp_path / "torchvision.pth")
    torch.save({"state_dict": whole.state_dict(), "state_dict_ema": average, **rest}, tmp_path / "timm.pth")
    torch.save({"network": whole.state_dict(), **rest}, tmp_path / "own.pth")
    for name in ("torchvision", "timm", "own"):
        assert_has(build(tmp_path / f"{name}.pth", "squeezenet1_1"), whole.state_dict())


def test_of_several_state_dicts_under_names_of_their_own_none_is_taken(tmp_path, monkeypatch):
    first, second = (network("squeezenet1_1", seed=seed).state_dict() for seed in (1, 2))
    torch.save({"mine": first, "yours": second, "epoch": 3}, tmp_path / "both.pth")
    with pytest.raises(WeightsError, match=r"both.pth holds 2 state dicts: mine, yours\.") as error:
        build(tmp_path / "both.pth", "squeezenet1_1")
    exec(str(error.value).splitlines()[1].partition(": ")[2])
    assert_has(build(tmp_path / "one.pth", "squeezenet1_1"), first)


@pytest.mark.parametrize(
    "odd", [torch.Tensor.to_sparse, lambda t: t.to(torch.complex64), lambda t: t.to("meta")]
)
@pytest.mark.parametrize("arch", ["squeezenet1_1", "timm:test_resnet"])
def test_tensors_that_are_no_plain_numbers_are_refused(tmp_path, arch, odd):
    if arch.startswith("timm:"):
        state = pytest.importorskip("timm").create_model("test_resnet").state_dict()
    else:
        state = network(arch).state_dict()
    torch.save({name: odd(t) if t.ndim else t for name, t in state.items()}, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match=r"weight is torch\.\w+, not plain numbers"):
        build(tmp_path / "odd.pth", arch)


def test_a_network_that_fits_as_it_is_needs_no_word(tmp_path):
    torch.save(network("squeezenet1_1").state_dict(), tmp_path / "mine.pth")
    said = []
    build(tmp_path / "mine.pth", "squeezenet1_1", said)
    assert said == []


def test_a_prefix_that_leaves_something_over_is_none():
    wanted = ["conv.weight", "bn.bias"]
    ways = namings(own_naming(wanted, [*wanted, "fc.weight"]), ["conv", "bn", "fc"])
    assert find_reading(["m.conv.weight", "m.bn.bias", "m.fc.weight"], ways, origin="f").prefix == "m."
    assert find_reading(["m.conv.weight"], ways, origin="f") is None
    assert find_reading(["m.conv.weight", "m.bn.bias", "m.more.bias"], ways, origin="f") is None
    assert find_reading(["mconv.weight", "mbn.bias"], ways, origin="f") is None
    assert find_reading([], ways, origin="f") is None
