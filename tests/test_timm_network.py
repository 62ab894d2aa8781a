"""timm's networks as backbones: the features are timm's own, and the groups are complete."""

import os
import random
import re
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from conftest import some_quick

timm = pytest.importorskip("timm")

from finetune.errors import ConfigError, WeightsError  # noqa: E402
from finetune.model.architecture import TIMM  # noqa: E402
from finetune.model.catalogue import find_architecture  # noqa: E402
from finetune.model.classifier import ImageClassifier, build_classifier, rebuild_classifier  # noqa: E402
from finetune.model.layer_groups import decayed_parameters  # noqa: E402
from finetune.model.spec import ModelSpec  # noqa: E402
from finetune.model.timm_network import TimmBackbone, build_timm_backbone  # noqa: E402
from finetune.model.weights import Weights, load_weights  # noqa: E402

BACKBONES = Path(__file__).parents[1] / "docs" / "backbones.md"

LARGE = 40_000_000  # parameters

# One of each kind: maps, tokens with and without a class token, channels last, several scales, and layers
# that stand in two places.
SOME = (
    "test_resnet",
    "tf_efficientnet_lite0",
    "deit_tiny_distilled_patch16_224",
    "swin_tiny_patch4_window7_224",
    "crossvit_9_240",
    "poolformer_s12",
    "coat_tiny",
)


def families() -> dict[str, list[str]]:
    """Return the names of all architectures of each module of `timm.models`."""
    found = defaultdict(list)
    for name in timm.list_models():
        found[timm.model_entrypoint(name).__module__.rpartition(".")[2]].append(name)
    return found


def documented() -> dict[str, str]:
    """Return the architecture of each family that docs/backbones.md lists."""
    table = re.findall(r"^\| (\w+) \| (\w+) \| \d", BACKBONES.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(table)


def release(version: str) -> list[int]:
    return [int(number) for number in version.split(".")[:3]]


def release_documented() -> list[int]:
    """Return the release of timm whose families docs/backbones.md lists."""
    return release(re.search(r"in timm ([0-9.]+)\)", BACKBONES.read_text(encoding="utf-8"))[1])


def on_meta(name: str) -> torch.nn.Module:
    with torch.device("meta"):
        return timm.create_model(name)


def fresh(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name).eval()


def timms_features(network: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return what timm itself says are the features: a map (N, C, h, w), or vectors that timm has pooled."""
    features = network.forward_features(images)
    if isinstance(features, torch.Tensor) and features.ndim == 4:
        last = getattr(network, "output_fmt", "NCHW") == "NHWC"
        return features.permute(0, 3, 1, 2) if last else features
    return network.forward_head(features, pre_logits=True)


def check_backbone(name: str) -> None:
    """Check one architecture: features, groups, what decays, and that frozen is frozen."""
    arch, network = find_architecture(f"{TIMM}{name}"), fresh(name)
    images = torch.rand(2, 3, arch.image_size, arch.image_size)
    with torch.no_grad():
        expected = timms_features(network, images)
        backbone = build_timm_backbone(arch, arch.image_size, network.state_dict()).eval()
        assert torch.equal(backbone(images), expected)

    weights = Weights("test", preprocessing(arch), network.state_dict())
    model = build_classifier(ModelSpec(arch.name, classes=3), weights=weights, seed=1)
    check_groups(model, network)

    model.freeze(1)
    model.train()
    before = {key: tensor.clone() for key, tensor in model.backbone.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(images * 255).sum().backward()
    optimizer.step()
    assert all(parameter.grad is None for parameter in model.backbone.parameters())
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.backbone.state_dict().items())


def check_groups(model: ImageClassifier, network: torch.nn.Module) -> None:
    """Check that the groups are complete, share nothing, and decay what timm lets decay."""
    of_group = [{id(parameter) for parameter in group.parameters()} for group in model.layer_groups]
    assert len(of_group) == 3
    assert all(of_group)
    assert sum(map(len, of_group)) == len(set.union(*of_group)) == len(list(model.parameters()))
    undecayed = getattr(network, "no_weight_decay", set)()
    pairs = {id(p): decays for group in model.layer_groups for p, decays in decayed_parameters(group)}
    for path, parameter in model.backbone.network.named_parameters():
        if path in undecayed or parameter.ndim < 2:
            assert not pairs[id(parameter)], path


def preprocessing(arch):
    return load_weights("none", arch).preprocessing


@pytest.mark.parametrize("name", some_quick(SOME, *SOME[:3]))
def test_features_are_timms_own_and_groups_are_complete(name):
    check_backbone(name)


def test_the_table_of_families_lists_those_of_timm():
    """A newer timm may have more families, which the slow test checks as well; an older one has fewer."""
    known, table = families(), documented()
    assert len(table) > 90
    unknown = {family: name for family, name in table.items() if name not in known.get(family, [name])}
    if release(timm.__version__) >= release_documented():
        assert not unknown
    else:
        assert len(unknown) < 10


def groups_alone(name: str, network: torch.nn.Module) -> None:
    """Check the groups of a network that computes nothing."""
    arch = find_architecture(f"{TIMM}{name}")
    with torch.device("meta"):
        model = build_classifier(ModelSpec(arch.name, classes=3), weights="none", seed=1)
    check_groups(model, network)


@pytest.mark.slow
def test_every_family_has_three_complete_groups_and_some_are_asked_for_their_own_features():
    """A third of the families computes, drawn by a fresh seed that is printed, for FUZZ_SEED to repeat."""
    seed = int(os.environ.get("FUZZ_SEED", random.SystemRandom().randrange(10**9)))
    print(f"FUZZ_SEED={seed}")
    chance, table = random.Random(seed), documented()
    for family, known in families().items():
        name = table.get(family, known[0])
        network = on_meta(name)
        computes = chance.random() < 1 / 3
        large = sum(parameter.numel() for parameter in network.parameters()) > LARGE
        if computes and not large and find_architecture(f"{TIMM}{name}").image_size <= 384:
            check_backbone(name)
        else:
            groups_alone(name, network)


def test_a_model_is_rebuilt_from_what_a_run_keeps():
    spec = ModelSpec("timm:deit_tiny_distilled_patch16_224", classes=3, image_size=64)
    model = build_classifier(spec, weights="none", seed=1).eval()
    again = rebuild_classifier(model.spec.to_dict(), model.state_dict()).eval()
    images = torch.rand(1, 3, 64, 64) * 255
    with torch.no_grad():
        assert torch.equal(again(images), model(images))


def test_position_embeddings_are_interpolated_to_another_size():
    arch, network = find_architecture("timm:deit_tiny_patch16_224"), fresh("deit_tiny_patch16_224")
    backbone = build_timm_backbone(arch, 96, network.state_dict())
    assert backbone.network.pos_embed.shape == (1, 1 + 6 * 6, 192)
    images = torch.zeros(1, 3, 96, 96)
    assert backbone(images).shape == (1, 192)
    # A constant field of positions stays constant, wherever it is interpolated.
    state = {**network.state_dict(), "pos_embed": torch.ones(1, 197, 192)}
    constant = build_timm_backbone(arch, 96, state).network.pos_embed
    torch.testing.assert_close(constant, torch.ones_like(constant))


def test_weights_of_a_run_go_into_a_network_for_another_size():
    spec = ModelSpec("timm:deit_tiny_patch16_224", classes=3, image_size=64)
    model = build_classifier(spec, weights="none", seed=1)
    of_run = Weights("run", model.preprocessing, model.state_dict(), of_run=True, arch=spec.arch)
    larger = build_classifier(ModelSpec(spec.arch, classes=2, image_size=96), weights=of_run, seed=2)
    ours, theirs = larger.backbone.network, model.backbone.network
    assert torch.equal(ours.blocks[3].attn.qkv.weight, theirs.blocks[3].attn.qkv.weight)
    assert ours.pos_embed.shape[1] == 1 + 6 * 6


def test_a_classifier_of_any_size_or_none_does_not_matter():
    arch, network = find_architecture("timm:test_resnet"), timm.create_model("test_resnet", num_classes=7)
    state = network.state_dict()
    without = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    assert len(without) == len(state) - 2
    for tensors in (state, without):
        loaded = build_timm_backbone(arch, arch.image_size, tensors)
        assert all(torch.equal(tensor, without[name]) for name, tensor in loaded.network.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("layer1.0.conv1.weight"), r"tensors 1 missing \(layer1.0.conv1.weight\)"),
        (lambda s: s.update(more=torch.ones(2)), r"1 unexpected \(more\)"),
        (
            lambda s: s.update({"conv1.0.weight": torch.ones(2, 3, 3, 3)}),
            r"1 of another shape \(conv1.0.weight \(2, 3, 3, 3\) instead of ",
        ),
        (lambda s: s["bn1.weight"].fill_(float("nan")), "bn1.weight holds NaN or infinity"),
        (
            lambda s: s.update({"bn1.weight": torch.ones(1).expand(1_000_000_000_000)}),
            "bn1.weight is larger than the file that holds it",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_what_differs(change, message, monkeypatch):
    monkeypatch.setattr("finetune.model.fitting._SECONDS", 0.1)  # to look for an architecture that fits
    arch, state = find_architecture("timm:test_resnet"), fresh("test_resnet").state_dict()
    change(state)
    with pytest.raises(WeightsError, match=message):
        build_timm_backbone(arch, arch.image_size, state, origin="file.pth")


@pytest.mark.parametrize(
    ("name", "size", "reason"),
    [
        ("timm:twins_svt_small", 112, r"img_size \(7, 7\) should be divided by patch_size \(2, 2\)"),
        ("timm:dla46x_c", 112, "its layers do not fit together at that size"),
        ("timm:efficientformer_l1", 192, "its layers do not fit together at that size"),
    ],
)
def test_a_size_that_a_network_cannot_take_is_refused_with_the_reason(name, size, reason):
    with pytest.raises(ConfigError, match=reason) as error:
        build_classifier(
            ModelSpec(name, classes=2, image_size=size), weights="default", seed=0, say=pytest.fail
        )
    assert len(str(error.value).splitlines()) == 2
    assert "Give 224, the size it was trained with" in str(error.value)


def test_what_features_do_not_need_is_not_trained():
    """A layer between features and classifier has weights, but no feature that a new head sees."""
    arch = find_architecture("timm:mobilenetv3_small_050")
    backbone = build_timm_backbone(arch, 64)
    assert isinstance(backbone, TimmBackbone)
    for unused in ("conv_head", "classifier"):
        assert isinstance(getattr(backbone.network, unused), torch.nn.Identity)
    backbone.train()
    backbone(torch.rand(2, 3, 64, 64)).sum().backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())
