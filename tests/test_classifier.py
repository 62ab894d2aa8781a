import copy
import json
import math

import pytest
import torch
from conftest import some_quick
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights, resnet18

from finetune.errors import CheckpointError, ConfigError
from finetune.model.catalogue import architectures, find_architecture
from finetune.model.classifier import ImageClassifier, build_classifier, rebuild_classifier
from finetune.model.convolutions import QuickConvolutions
from finetune.model.head import Head
from finetune.model.preprocessing import Preprocessing
from finetune.model.spec import HeadSpec, ModelSpec
from finetune.model.surgery import build_network, cut
from finetune.model.units import is_norm
from finetune.model.weights import Weights

REPRESENTATIVES = [
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3",
    "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf", "resnet18", "shufflenet_v2_x0_5",
    "squeezenet1_1", "swin_t",
]  # fmt: skip
CASES = [
    *REPRESENTATIVES,
    *(
        pytest.param(arch.name, marks=pytest.mark.slow)
        for arch in architectures()
        if arch.name not in REPRESENTATIVES
    ),
]


def small_size(name: str) -> int:
    sizes = {"inception": 96, "maxvit": 224, "vision_transformer": 56 if name == "vit_h_14" else 64}
    return sizes.get(find_architecture(name).family, 64)


def small(name: str = "resnet18", **fields: object) -> ImageClassifier:
    spec = ModelSpec(name, classes=3, **{"image_size": small_size(name), **fields})
    return build_classifier(spec, weights="none", seed=1)


def some_images(n: int = 4, size: int = 64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=generator)


def loss_of(model: ImageClassifier, images: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(images), torch.arange(len(images)) % 3)


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def changed(before: dict[str, Tensor], module: nn.Module) -> set[str]:
    return {name for name, tensor in module.state_dict().items() if not torch.equal(before[name], tensor)}


def step(model: ImageClassifier, images: Tensor) -> float:
    """Take one training step, with all parameters in the optimizer and a decay that moves each it can."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, weight_decay=0.1)
    optimizer.zero_grad()
    loss = loss_of(model, images)
    loss.backward()
    optimizer.step()
    return loss.item()


@pytest.mark.parametrize("name", CASES)
def test_one_step_frozen_and_one_unfrozen(name):
    torch.manual_seed(0)
    model = small(name).train()
    images = some_images(2, small_size(name))

    model.freeze(1)
    backbone, head = snapshot(model.backbone), snapshot(model.head)
    loss = step(model, images)
    assert loss == pytest.approx(math.log(3), abs=0.1)
    assert changed(backbone, model.backbone) == set()
    assert {name for name, _ in model.head.named_parameters()} <= changed(head, model.head)
    assert all(parameter.grad is None for parameter in model.backbone.parameters())
    del backbone  # the largest networks take gigabytes

    model.freeze(3)
    assert math.isfinite(step(model, images))
    without = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []


def test_a_middle_stage_trains_the_last_groups_only():
    model = small().train()
    model.freeze(2)
    before = snapshot(model)
    step(model, some_images())
    groups = {group.name: {name for name, _ in group.units} for group in model.layer_groups}
    moved = changed(before, model)
    assert not any(name.startswith(tuple(groups["early backbone"])) for name in moved)
    late = [name for name in model.state_dict() if name.startswith(tuple(groups["late backbone"]))]
    assert set(late) <= moved
    statistics = [name for name in late if "running" in name]
    assert statistics


def test_frozen_batch_norm_keeps_its_statistics_through_many_modes():
    model = small()
    model.freeze(1)
    before = snapshot(model.backbone)
    for mode in (True, False, True):
        model.train(mode)
        model(some_images())
    assert changed(before, model.backbone) == set()
    model.train()
    assert not any(module.training for group in model.layer_groups[:2] for module in group.modules())
    assert all(module.training for module in model.head.modules())
    assert not any(module.training for module in model.eval().modules())


def test_nothing_of_a_frozen_backbone_is_kept_for_the_backward_pass():
    model = small().train()
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):
        model.freeze(1)
        features = model.backbone(torch.randn(4, 3, 64, 64))
        assert not features.requires_grad
        assert kept == []
        model.freeze(2)
        model.backbone(torch.randn(4, 3, 64, 64))
        some = len(kept)
        assert some > 0
        kept.clear()
        model.freeze(3)
        model.backbone(torch.randn(4, 3, 64, 64))
        assert len(kept) > some


def test_freezing_again_deletes_gradients_that_were_left():
    model = small().train()
    model.freeze(3)
    loss_of(model, some_images()).backward()
    model.freeze(1)
    assert all(parameter.grad is None for parameter in model.backbone.parameters())
    assert all(parameter.grad is not None for parameter in model.head.parameters())


def test_batch_norm_of_frozen_groups_can_be_trained():
    model = small().train()
    model.freeze(1, batch_norm="train")
    before = snapshot(model.backbone)
    step(model, some_images())
    norms = {
        f"{name}.{key}"
        for name, module in model.backbone.named_modules()
        if is_norm(module)
        for key in module.state_dict()
    }
    assert changed(before, model.backbone) == norms
    assert "bn1.running_mean" in norms
    before = snapshot(model)
    model.eval()(some_images())
    assert changed(before, model) == set()


def pretrained() -> ImageClassifier:
    """Return a small model whose backbone counts as trained elsewhere."""
    first = small()
    weights = Weights("test", first.preprocessing, first.state_dict(), of_run=True)
    return build_classifier(first.spec, weights=weights, seed=1)


@pytest.mark.parametrize(
    ("model", "batch_norm", "moves"),
    [
        ("random", "auto", True),
        ("random", "still", False),
        ("random", "train", True),
        ("pretrained", "auto", False),
        ("pretrained", "still", False),
        ("pretrained", "train", True),
    ],
)
def test_the_statistics_of_a_pretrained_backbone_stand_still_unless_asked(model, batch_norm, moves):
    model = (small() if model == "random" else pretrained()).train()
    model.freeze(3, batch_norm=batch_norm)
    before, head = snapshot(model.backbone), snapshot(model.head)
    step(model, some_images())
    moved = changed(before, model.backbone)
    assert {name for name in before if "running" in name or "num_batches" in name} & moved == (
        {name for name in before if "running" in name or "num_batches" in name} if moves else set()
    )
    learn = {name for name, _ in model.backbone.named_parameters()}
    assert learn <= moved  # the weights of batch norm learn as all others
    assert any("running" in name for name in changed(head, model.head))  # a new head has statistics to find


def test_still_statistics_survive_a_change_of_mode_and_of_stage():
    model = pretrained()
    for groups in (1, 2, 3):
        model.freeze(groups)
        before = snapshot(model.backbone)
        for mode in (True, False, True):
            model.train(mode)
            with torch.no_grad():
                model(some_images())
        assert changed(before, model.backbone) == set()
    model.freeze(3, batch_norm="train")
    model.train()
    with torch.no_grad():
        model(some_images())
    assert changed(before, model.backbone) != set()


def test_with_still_statistics_training_sees_an_image_as_evaluation_does():
    """An image's logits do not depend on what else is in its batch, but for the head's own batch norm."""
    model = pretrained()
    model.freeze(3)
    images = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.train().backbone(images), model.eval().backbone(images))


def test_frozen_dropout_and_stochastic_depth_stay_off_when_norms_are_trained():
    model = small("efficientnet_b0").train()
    model.freeze(1, batch_norm="train")
    images = torch.randn(4, 3, 64, 64)
    assert torch.equal(model.backbone(images), model.backbone(images))
    model.freeze(3)
    assert not torch.equal(model.backbone(images), model.backbone(images))


@pytest.mark.parametrize("groups", [0, 4])
def test_freezing_more_groups_than_there_are_is_refused(groups):
    with pytest.raises(ConfigError, match=f"{groups} layer groups cannot be trained; there are 3"):
        small().freeze(groups)


def test_images_are_normalised_as_torchvision_does():
    model = small(head=HeadSpec(hidden=(), dropout=0.0)).eval()
    images = some_images(2)
    transform = ResNet18_Weights.IMAGENET1K_V1.transforms(crop_size=64, resize_size=64)
    torch.testing.assert_close(
        model(images), model.head(model.backbone(transform(images))), rtol=1e-4, atol=1e-6
    )


def test_uint8_and_float_images_give_the_same_logits():
    model = small().eval()
    images = some_images()
    assert torch.equal(model(images), model(images.float()))
    kept = images.float()
    model(kept)
    assert torch.equal(kept, images.float())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("memory_format", ["channels_last", "contiguous"])
def test_logits_are_float32_and_alike_in_every_precision_and_format(precision, memory_format):
    reference = small(memory_format="contiguous").eval()
    model = small(precision=precision, memory_format=memory_format).eval()
    images = some_images()
    logits = model(images)
    assert logits.dtype == torch.float32
    tolerance = 0.05 if precision == "bfloat16" else 1e-4
    scale = reference(images).abs().max().item()
    torch.testing.assert_close(logits, reference(images), rtol=0, atol=tolerance * scale)
    seen: list[torch.dtype] = []
    with model.backbone.register_forward_hook(lambda _, __, out: seen.append(out.dtype)):
        model(images)
    assert seen == [getattr(torch, precision)]


def depthwise_dtypes(model, images):
    """Return what the depthwise convolutions of a forward pass computed in."""
    seen: set[torch.dtype] = set()
    layers = [one for one in model.backbone.modules() if isinstance(one, nn.Conv2d) and one.groups > 1]
    hooks = [one.register_forward_hook(lambda _, __, out: seen.add(out.dtype)) for one in layers]
    model(images)
    for hook in hooks:
        hook.remove()
    return seen


def test_in_bfloat16_on_a_cpu_depthwise_convolutions_are_quick_where_they_train(monkeypatch):
    entered = []
    monkeypatch.setattr(QuickConvolutions, "__enter__", lambda self: entered.append(self))
    monkeypatch.setattr(QuickConvolutions, "__exit__", lambda self, *_: None)
    model, images = small("shufflenet_v2_x0_5", precision="bfloat16").train(), some_images()
    model.freeze(1)
    assert depthwise_dtypes(model, images) == {torch.bfloat16}
    assert entered == []  # nothing is back-propagated
    model.freeze(3)
    assert depthwise_dtypes(model, images) == {torch.bfloat16}
    model.freeze(1, batch_norm="train")  # it back-propagates to the norms of the frozen groups
    model(images)
    assert len(entered) == 2
    with torch.no_grad():
        assert depthwise_dtypes(model.eval(), images) == {torch.bfloat16}
    assert len(entered) == 2
    model.train().set_precision("float32")
    model(images)
    assert len(entered) == 2  # its filters are 3 pixels wide: nothing is to be gained


def test_an_autocast_around_the_model_changes_nothing():
    model = small().eval()
    images = some_images()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(images)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, model(images))


def test_channels_last_reaches_the_backbone():
    model = small().eval()
    assert model.backbone.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    features = model.backbone(torch.randn(2, 3, 64, 64).contiguous(memory_format=torch.channels_last))
    assert features.is_contiguous(memory_format=torch.channels_last)


def test_the_same_seed_builds_the_same_model_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = small()
    assert torch.equal(torch.rand(1), expected)
    second = small()
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)
    other = build_classifier(ModelSpec("resnet18", 3, image_size=64), weights="none", seed=2)
    assert not torch.equal(first.head.layers[2].weight, other.head.layers[2].weight)


def test_the_head_does_not_depend_on_the_weights(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "other.pth"
    torch.save(resnet18().state_dict(), path)
    said: list[str] = []
    spec = ModelSpec("resnet18", 3, image_size=64)
    loaded = build_classifier(spec, weights=str(path), seed=1, say=said.append)
    random = build_classifier(spec, weights="none", seed=1)
    assert not torch.equal(loaded.backbone.conv1.weight, random.backbone.conv1.weight)
    heads = zip(loaded.head.state_dict().values(), random.head.state_dict().values(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in heads)


def test_the_head_does_not_depend_on_how_much_the_backbone_draws():
    heads = [small(name).head.state_dict() for name in ("resnet18", "resnet34")]
    assert all(torch.equal(heads[0][name], heads[1][name]) for name in heads[0])


def test_children_groups_and_sizes():
    model = build_classifier(ModelSpec("vit_b_32", 7, layer_groups=5), weights="none", seed=1)
    assert [name for name, _ in model.named_children()] == ["backbone", "head"]
    assert len(model.layer_groups) == 5
    assert model.spec.image_size == model.preprocessing.image_size == 224
    assert model.head.layers[-1].out_features == 7
    assert model.head.layers[2].in_features == 768
    assert not {"mean", "std"} & set(model.state_dict())


def test_groups_stay_those_of_the_model_in_a_deep_copy():
    model = small()
    model.freeze(1)
    twin = copy.deepcopy(model)
    ours = {id(parameter) for group in twin.layer_groups for parameter in group.parameters()}
    assert ours == {id(parameter) for parameter in twin.parameters()}
    twin.freeze(3)
    assert not any(p.requires_grad for p in model.backbone.parameters())


@pytest.mark.parametrize("name", some_quick(["resnet18", "vit_b_32", "googlenet"], "resnet18", "googlenet"))
def test_a_model_is_rebuilt_from_plain_values_and_its_state(name):
    head = HeadSpec(hidden=(8, 4), dropout=(0.1, 0.2, 0.3), pool="avg")
    model = small(name, head=head, layer_groups=4).eval()
    fields = json.loads(json.dumps(model.spec.to_dict()))
    again = rebuild_classifier(fields, model.state_dict()).eval()
    images = some_images(2)
    assert torch.equal(again(images), model(images))
    assert again.spec == model.spec
    assert again.preprocessing == model.preprocessing


def test_state_of_another_model_is_refused():
    model = small()
    state = model.state_dict()
    fields = model.spec.to_dict()
    with pytest.raises(CheckpointError, match=r"1 tensors differ, first head\.layers\.6\.bias"):
        rebuild_classifier(fields, {key: t for key, t in state.items() if key != "head.layers.6.bias"})
    with pytest.raises(CheckpointError, match="2 tensors differ"):
        rebuild_classifier({**fields, "classes": 4}, state)
    with pytest.raises(CheckpointError, match="no architecture is called 'resnet0'"):
        rebuild_classifier({**fields, "arch": "resnet0"}, state)


NO_METADATA = {"embeddings": [], "numbers": 0, "dropout": 0.0}
HEAD = {"hidden": [8], "dropout": 0.1, "pool": "avg", "metadata": NO_METADATA}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"surprise": 1}, "fields that are missing or unknown: surprise"),
        ({"classes": "3"}, "values that cannot be: classes"),
        ({"precision": "float8"}, "values that cannot be: precision"),
        ({"image_size": 32}, "values that cannot be: image_size"),
        ({"preprocessing": None}, "preprocessing: fields that are missing"),
        ({"head": HEAD | {"hidden": [0]}}, "values that cannot be: head.hidden"),
        ({"head": HEAD | {"metadata": {}}}, "model.head.metadata: fields that are missing or unknown"),
        ({"head": HEAD | {"metadata": NO_METADATA | {"embeddings": [[3, 0]]}}}, "head.metadata.embeddings"),
        ({"head": HEAD | {"metadata": NO_METADATA | {"dropout": 1.0}}}, "head.metadata.dropout"),
    ],
)
def test_a_damaged_spec_is_refused(damage, message):
    fields = small().spec.to_dict()
    with pytest.raises(CheckpointError, match=message):
        ModelSpec.from_dict({**fields, **damage})


def test_preprocessing_scales_with_the_image_and_survives_json():
    preprocessing = Preprocessing.from_weights(ResNet18_Weights.IMAGENET1K_V1.transforms())
    assert (preprocessing.image_size, preprocessing.resize_size) == (224, 256)
    assert preprocessing.interpolation == "bilinear"
    assert preprocessing.mean == (0.485, 0.456, 0.406)
    scaled = preprocessing.scaled_to(112)
    assert (scaled.image_size, scaled.resize_size) == (112, 128)
    assert Preprocessing.from_dict(json.loads(json.dumps(scaled.to_dict()))) == scaled


def test_pretrained_inception_rescales_its_input(tmp_path):
    path = tmp_path / "inception.pth"
    torch.save(build_network(find_architecture("inception_v3"), 96).state_dict(), path)
    spec = ModelSpec("inception_v3", 3, image_size=96)
    loaded = build_classifier(spec, weights=str(path), seed=1, say=lambda _: None)
    assert loaded.spec.transform_input
    assert hasattr(loaded.backbone, "transform_input")
    random = build_classifier(spec, weights="none", seed=1)
    assert not random.spec.transform_input
    again = rebuild_classifier(loaded.spec.to_dict(), loaded.state_dict())
    assert hasattr(again.backbone, "transform_input")


def test_a_model_needs_its_preprocessing():
    backbone = cut(build_network(find_architecture("resnet18"), 64))
    with pytest.raises(ValueError, match="must have its preprocessing"):
        ImageClassifier(backbone, Head(512, 3), ModelSpec("resnet18", 3))
