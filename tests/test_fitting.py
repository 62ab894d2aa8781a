"""A file that fits another architecture names it, and never the one that is set."""

import pytest
import torch
from conftest import some_quick
from torchvision.models import get_model, resnet18

from finetune.errors import WeightsError
from finetune.model import fitting
from finetune.model.catalogue import architectures, find_architecture
from finetune.model.classifier import build_classifier
from finetune.model.fitting import which_fit
from finetune.model.meta import WithoutValues
from finetune.model.spec import ModelSpec


@pytest.mark.parametrize(
    ("made", "arch"),
    some_quick(
        [
            ("resnet34", "resnet18"),
            ("shufflenet_v2_x0_5", "shufflenet_v2_x1_0"),
            ("mobilenet_v3_small", "mobilenet_v2"),
            ("squeezenet1_1", "resnet34"),
            ("mnasnet0_75", "mnasnet0_5"),
        ],
        ("shufflenet_v2_x0_5", "shufflenet_v2_x1_0"),
        ("squeezenet1_1", "resnet34"),
    ),
)
def test_the_architecture_that_fits_is_named(tmp_path, made, arch):
    state = get_model(made, weights=None, num_classes=7).state_dict()
    alone = {f"m.{name}": t for name, t in state.items() if not name.startswith(("fc.", "classifier."))}
    for name, tensors in (("whole", state), ("alone", {"state_dict": alone})):
        torch.save(tensors, tmp_path / f"{name}.pth")
        spec = ModelSpec(arch, classes=3, image_size=64)
        with pytest.raises(WeightsError, match=f"It looks like {made}: set model.arch: {made}") as error:
            build_classifier(spec, weights=str(tmp_path / f"{name}.pth"), seed=1, say=lambda _: None)
        assert f"model.arch: {arch}" not in str(error.value)


@pytest.mark.slow
def test_several_that_fit_are_all_named(monkeypatch):
    """timm has one network under several names, which differ in what their weights learned from."""
    pytest.importorskip("timm")
    monkeypatch.setattr(fitting, "_SECONDS", 2.0)
    arch = find_architecture("timm:test_resnet")
    with WithoutValues():
        tensors = get_model("resnet18", weights=None).state_dict()
    text = which_fit(tensors, arch, "mine.pth")
    assert "timm:resnet18" in text
    assert text.endswith(("set model.arch: timm:resnet18.", "set model.arch: timm:ssl_resnet18."))


@pytest.mark.slow
def test_the_other_library_is_looked_at_where_none_fits(monkeypatch):
    timm = pytest.importorskip("timm")
    monkeypatch.setattr(fitting, "_SECONDS", 2.0)
    with torch.device("meta"):
        tensors = timm.create_model("test_efficientnet").state_dict()
    text = which_fit(tensors, find_architecture("resnet18"), "test_efficientnet.pth")
    assert "timm:test_efficientnet" in text
    assert which_fit(resnet18().state_dict(), find_architecture("timm:test_vit"), "a.pth").count("resnet18")


def test_what_fits_nothing_says_what_to_do(monkeypatch):
    monkeypatch.setattr(fitting, "_SECONDS", 0.0)
    text = which_fit({"a.b": torch.zeros(1)}, find_architecture("resnet18"), "a.pth")
    assert text == "Set model.arch to the architecture it was saved from, or name other weights."


@pytest.mark.slow
def test_each_of_torchvisions_architectures_is_found_and_no_other():
    for arch in architectures():
        _, shapes = fitting._torchvision_shapes(arch)
        tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        assert fitting._of_torchvision(tensors, arch, "a.pth") == [arch.name]
