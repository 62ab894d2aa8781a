import pytest
import torch
from conftest import some_quick
from torch import Tensor, nn

from finetune.errors import ConfigError
from finetune.model.catalogue import Architecture, architectures, find_architecture
from finetune.model.surgery import (
    build_network,
    check_image_size,
    cut,
    feature_shape,
    fit_positions,
    small_feature_shape,
    torchvision_names,
)

# One small architecture per family, and those that differ from their family in what matters here.
REPRESENTATIVES = [
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3",
    "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_y_400mf", "resnet18", "shufflenet_v2_x0_5",
    "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11_bn", "vit_b_32",
]  # fmt: skip
REST = [arch.name for arch in architectures() if arch.name not in REPRESENTATIVES]
CASES = [
    *REPRESENTATIVES,
    *(pytest.param(name, marks=pytest.mark.slow) for name in REST),
]

# The module of each family that torchvision hands the features to.
CLASSIFIERS = {
    "resnet": "fc", "googlenet": "fc", "inception": "fc", "regnet": "fc", "shufflenetv2": "fc",
    "swin_transformer": "head", "vision_transformer": "heads",
}  # fmt: skip


def small_image_size(arch: Architecture) -> int:
    return {"inception": 96, "maxvit": 224, "vision_transformer": 448}.get(arch.family, 64) // (
        8 if arch.name == "vit_h_14" else 7 if arch.family == "vision_transformer" else 1
    )


def calibrate(network: nn.Module, images: Tensor) -> None:
    """Let batch norm see the images once, so that random networks pass on signals of a natural size."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        network(images)
    network.eval()


def torchvisions_features(network: nn.Module, family: str, images: Tensor) -> Tensor:
    """Return what the untouched network hands to its own classifier."""
    seen: list[Tensor] = []
    classifier = network.get_submodule(CLASSIFIERS.get(family, "classifier"))
    with torch.no_grad(), classifier.register_forward_pre_hook(lambda _, args: seen.append(args[0])):
        network(images)
    return seen[0]


def pooled_like(features: Tensor, reference: Tensor, family: str) -> Tensor:
    if features.ndim == 2 or features.shape == reference.shape:
        return features
    side = {"alexnet": 6, "vgg": 7}.get(family, 1)
    return nn.functional.adaptive_avg_pool2d(features, side).reshape(reference.shape)


@pytest.mark.parametrize("name", CASES)
def test_the_backbone_computes_torchvisions_own_features(name):
    torch.manual_seed(0)
    arch = find_architecture(name)
    size = small_image_size(arch)
    network = build_network(arch, size, transform_input=True).eval()
    images = torch.randn(2, 3, size, size)
    calibrate(network, images)
    reference = torchvisions_features(network, arch.family, images)
    backbone = cut(network).eval()
    with torch.no_grad():
        features = backbone(images)
    assert reference.isfinite().all()
    assert reference.std() > 1e-3
    assert (reference[0] - reference[1]).abs().max() > 1e-4
    torch.testing.assert_close(pooled_like(features, reference, arch.family), reference, rtol=1e-5, atol=1e-6)
    assert tuple(features.shape[1:]) == feature_shape(backbone, size)
    small = small_feature_shape(arch, backbone, size)
    assert (small[0], len(small)) == (features.shape[1], features.ndim - 1)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121", "regnet_y_400mf"])
def test_names_in_the_backbone_are_torchvisions(name):
    network = build_network(find_architecture(name), 64)
    backbone = cut(network)
    assert all(ours == theirs for ours, theirs in torchvision_names(network, backbone).items())
    assert set(backbone.state_dict()) < set(network.state_dict())


def test_only_two_names_of_a_vision_transformer_change():
    network = build_network(find_architecture("vit_b_32"), 64)
    names = torchvision_names(network, cut(network))
    assert {ours: theirs for ours, theirs in names.items() if ours != theirs} == {
        "encoder.tokens.class_token": "class_token",
        "encoder.tokens.pos_embedding": "encoder.pos_embedding",
    }


@pytest.mark.parametrize(("name", "auxiliary"), [("googlenet", "aux"), ("inception_v3", "AuxLogits")])
def test_auxiliary_heads_are_cut_off(name, auxiliary):
    network = build_network(find_architecture(name), 96)
    backbone = cut(network).train()
    assert any(key.startswith(auxiliary) for key in network.state_dict())
    assert not any(key.startswith(auxiliary) for key in backbone.state_dict())
    assert isinstance(backbone(torch.randn(2, 3, 96, 96)), Tensor)


def test_densenet_keeps_its_last_relu():
    backbone = cut(build_network(find_architecture("densenet121"), 64)).eval()
    features = backbone(torch.randn(1, 3, 64, 64))
    assert features.min() == 0


def test_input_is_rescaled_only_where_asked():
    arch = find_architecture("googlenet")
    assert "transform_input" not in dict(cut(build_network(arch, 64)).named_children())
    rescaled = cut(build_network(arch, 64, transform_input=True))
    white = (torch.ones(1, 3, 1, 1) - torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(1, 3, 1, 1)
    torch.testing.assert_close(rescaled.transform_input(white), torch.ones(1, 3, 1, 1))
    assert "transform_input.scale" not in rescaled.state_dict()


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("vit_b_16", 100, "vit_b_16 needs a multiple of 16 pixels, not 100; give 96 or 112"),
        ("vit_h_14", 10, "needs a multiple of 14 pixels, not 10; give 14"),
        ("maxvit_t", 256, "maxvit_t needs a multiple of 224 pixels, not 256; give 224 or 448"),
        ("alexnet", 62, "alexnet needs images of at least 63 pixels, not 62"),
        ("inception_v3", 74, "inception_v3 needs images of at least 75 pixels, not 74"),
    ],
)
def test_a_size_that_an_architecture_cannot_work_with_is_refused(name, size, message):
    with pytest.raises(ConfigError, match=message):
        check_image_size(find_architecture(name), size)


@pytest.mark.parametrize(
    ("name", "smallest"),
    some_quick(
        [
            ("alexnet", 63),
            ("convnext_tiny", 32),
            ("densenet121", 29),
            ("efficientnet_b0", 1),
            ("efficientnet_v2_s", 1),
            ("googlenet", 15),
            ("inception_v3", 75),
            ("mobilenet_v3_small", 1),
            ("regnet_y_400mf", 1),
            ("resnet18", 1),
            ("squeezenet1_0", 21),
            ("squeezenet1_1", 17),
            ("swin_t", 4),
            ("swin_v2_t", 4),
            ("vgg11", 32),
            ("vit_b_32", 32),
        ],
        *[
            ("alexnet", 63),
            ("convnext_tiny", 32),
            ("googlenet", 15),
            ("resnet18", 1),
            ("squeezenet1_0", 21),
            ("swin_t", 4),
            ("vit_b_32", 32),
        ],
    ),
)
def test_the_smallest_size_works_and_no_smaller_one(name, smallest):
    arch = find_architecture(name)
    backbone = cut(build_network(arch, smallest)).eval().to("meta")
    assert min(backbone(torch.empty(2, 3, smallest, smallest, device="meta")).shape) > 0
    if smallest > 1:
        with pytest.raises(ConfigError, match=r"data\.image_size"):
            check_image_size(arch, smallest - 1)
        with pytest.raises((RuntimeError, AssertionError)):
            backbone(torch.empty(2, 3, smallest - 1, smallest - 1, device="meta"))


@pytest.mark.parametrize("name", ["vit_b_32", "resnet18", "swin_t"])
def test_other_sizes_work(name):
    arch = find_architecture(name)
    backbone = cut(build_network(arch, 96)).eval()
    with torch.no_grad():
        features = backbone(torch.randn(1, 3, 96, 96))
    assert tuple(features.shape[1:]) == feature_shape(backbone, 96)


def test_position_embeddings_are_interpolated_to_another_size():
    arch = find_architecture("vit_b_32")
    small, large = build_network(arch, 64), build_network(arch, 128)
    state = small.state_dict()
    fitted = fit_positions(dict(state), large)
    ours, theirs = fitted["encoder.pos_embedding"], state["encoder.pos_embedding"]
    assert ours.shape == (1, 17, 768)
    assert torch.equal(ours[:, 0], theirs[:, 0])
    # The corners of the grid are where they were, because corners are aligned.
    for large_at, small_at in [(1, 1), (4, 2), (13, 3), (16, 4)]:
        torch.testing.assert_close(ours[0, large_at], theirs[0, small_at])
    assert fit_positions(dict(state), small)["encoder.pos_embedding"] is theirs


def test_the_shape_of_features_is_told_without_computing_them():
    backbone = cut(build_network(find_architecture("resnet18"), 64)).train()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    assert feature_shape(backbone, 224) == (512, 7, 7)
    assert small_feature_shape(find_architecture("resnet18"), backbone, 224) == (512, 1, 1)
    assert all(part.training for part in backbone.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.state_dict().items())
    assert all(module.training for module in backbone.modules())
