import math

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from finetune.model.catalogue import architectures
from finetune.model.classifier import ImageClassifier, build_classifier
from finetune.model.head import Head
from finetune.model.heat_map import heat_maps
from finetune.model.preprocessing import Preprocessing
from finetune.model.spec import HeadSpec, ModelSpec
from finetune.model.surgery import cut

SIDE = 32


def classifier(backbone: nn.Module, channels: int, *, pool: str = "avg", classes: int = 2) -> ImageClassifier:
    """Return a linear classifier over a backbone, which sees images as 0–1."""
    preprocessing = Preprocessing(SIDE, SIDE, (0, 0, 0), (1, 1, 1), "bilinear")
    spec = ModelSpec(
        "resnet18", classes, HeadSpec(hidden=()), 2, SIDE, memory_format="channels_last",
        preprocessing=preprocessing,
    )  # fmt: skip
    head = Head(channels, classes, hidden=(), pool=pool)
    return ImageClassifier(backbone, head, spec).eval()


def colour_detector() -> ImageClassifier:
    """Return a model whose class 0 is red and whose class 1 is blue, by the mean over the image."""
    block = nn.Conv2d(3, 3, 4, stride=4, bias=False)
    block.weight.data = torch.eye(3)[:, :, None, None].expand(3, 3, 4, 4) / 16
    model = classifier(nn.Sequential(block), 3)
    model.head.layers[-1].weight.data = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    return model


def red_and_blue() -> Tensor:
    """Return an image with a red corner at the upper left and a blue one at the lower right."""
    image = torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8)
    image[0, 0, :8, :8] = 255
    image[0, 2, 24:, 24:] = 255
    return image


def test_the_heat_of_a_class_is_where_the_network_finds_it():
    images = red_and_blue().repeat(2, 1, 1, 1)
    found = heat_maps(colour_detector(), images, torch.tensor([0, 1]))
    expected = torch.zeros(2, 8, 8)
    expected[0, :2, :2] = expected[1, 6:, 6:] = 1
    assert torch.equal(found.heat, expected)
    assert found.layer == "backbone"


class Corner(nn.Module):
    """See the lower left corner alone."""

    def forward(self, maps: Tensor) -> Tensor:
        seen = torch.zeros_like(maps)
        seen[:, :, 4:, :4] = 1
        return maps * seen


def test_a_network_that_looks_at_one_corner_is_hot_there_alone():
    conv = nn.Conv2d(3, 4, 4, stride=4)
    nn.init.constant_(conv.weight, 0.01)
    model = classifier(nn.Sequential(conv, Corner()), 4)
    model.head.layers[-1].weight.data = torch.tensor([[1.0] * 4, [-1.0] * 4])
    images = torch.full((2, 3, SIDE, SIDE), 200, dtype=torch.uint8)
    heat = heat_maps(model, images, torch.tensor([0, 1])).heat
    assert bool((heat[0, 4:, :4] == 1).all())
    assert heat[0].sum() == 16
    assert not heat[1].any(), "nothing speaks for a class that all of it speaks against"


def vision_transformer() -> ImageClassifier:
    torch.manual_seed(3)
    network = VisionTransformer(SIDE, 8, num_layers=3, num_heads=2, hidden_dim=16, mlp_dim=32)
    return classifier(cut(network), 16, pool="none", classes=3)


def test_tokens_are_looked_at_before_the_last_attention_on_the_grid_of_patches():
    model, image = vision_transformer(), torch.randint(0, 256, (1, 3, SIDE, SIDE), dtype=torch.uint8)
    found = heat_maps(model, image, torch.tensor([2]))
    assert found.layer.endswith("encoder_layer_2.ln_1")
    kept: list[Tensor] = []
    norm = model.get_submodule(found.layer)
    hook = norm.register_forward_hook(lambda _, __, output: kept.append(output))
    logits = model(image)
    hook.remove()
    (gradient,) = torch.autograd.grad(logits[0, 2], kept[0])
    weights = gradient[0, 1:].mean(0)  # without the class token
    plain = (kept[0][0, 1:] @ weights).clamp_min(0).reshape(4, 4)
    assert torch.allclose(found.heat[0], plain / plain.max(), atol=1e-5)


def test_a_small_image_is_looked_at_where_the_map_still_has_cells():
    model = build_classifier(
        ModelSpec("shufflenet_v2_x0_5", classes=3, image_size=SIDE), weights="none", seed=1
    ).eval()
    found = heat_maps(model, red_and_blue(), torch.tensor([0]))
    assert found.heat.shape == (1, 4, 4)
    assert found.layer.startswith("backbone.stage2")


def test_a_network_that_gives_vectors_alone_has_no_heat_map():
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 4))
    assert heat_maps(classifier(backbone, 4, pool="none"), red_and_blue(), torch.tensor([0])) is None


def test_the_model_stays_as_it_was_also_in_inference_mode():
    model = colour_detector().requires_grad_(False)
    with torch.inference_mode():
        found = heat_maps(model, red_and_blue(), torch.tensor([1]))
    assert found.heat[0, 7, 7] == 1
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("arch", ["densenet121", "swin_t", "squeezenet1_1"])
def test_the_heat_map_is_that_of_captum(arch):
    attribution = pytest.importorskip("captum.attr", reason="compares with captum where it is installed")
    model = build_classifier(ModelSpec(arch, classes=3, image_size=128), weights="none", seed=1).eval()
    images = torch.randint(0, 256, (2, 3, 128, 128), dtype=torch.uint8)
    grad_cam = attribution.LayerGradCam(model, model.backbone)
    theirs = grad_cam.attribute(images.float(), target=torch.tensor([0, 2]), relu_attributions=True)[:, 0]
    ours = heat_maps(model, images, torch.tensor([0, 2])).heat
    most = theirs.amax((1, 2), keepdim=True).clamp_min(1e-30)
    assert torch.allclose(ours, theirs / most, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("arch", [arch.name for arch in architectures()])
def test_every_network_of_torchvision_has_a_heat_map(arch):
    if math.prod((architecture.parameters for architecture in architectures(arch)), start=1) > 100e6:
        pytest.skip("as its smaller sisters, and too large")
    size = 224 if arch.startswith("maxvit") else 96 if arch == "inception_v3" else 64
    model = build_classifier(ModelSpec(arch, classes=3, image_size=size), weights="none", seed=1).eval()
    images = torch.randint(0, 256, (1, 3, size, size), dtype=torch.uint8)
    found = heat_maps(model, images, torch.tensor([1]))
    assert found.heat.shape[1] >= 2
    assert found.heat.isfinite().all()
