import pytest

from finetune.errors import ConfigError
from finetune.model.catalogue import architectures, find_architecture


def test_every_classification_model_of_torchvision_is_there():
    known = architectures()
    assert len(known) >= 80
    assert len({arch.family for arch in known}) == 17


def test_an_architecture_knows_what_its_default_weights_need():
    arch = find_architecture("resnet50")
    assert arch.family == "resnet"
    assert arch.parameters == 25_557_032
    assert arch.image_size == 224
    assert arch.weights == ("IMAGENET1K_V2", "IMAGENET1K_V1")
    assert 90 < arch.download_mb < 110
    assert find_architecture("inception_v3").image_size == 299


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("resnet43", "resnet34"), ("ResNet34", "resnet34"), ("efficientnet-b0", "efficientnet_b0")],
)
def test_a_misspelt_architecture_is_answered_with_the_nearest(wrong, near):
    with pytest.raises(ConfigError, match=rf"no architecture is called '{wrong}'; did you mean .*{near}"):
        find_architecture(wrong)


def test_an_architecture_like_no_other_is_answered_with_where_to_look():
    with pytest.raises(ConfigError, match=r"'zzz'; the default is resnet34\. `finetune models` lists all"):
        find_architecture("zzz")


def test_detection_models_are_not_architectures():
    with pytest.raises(ConfigError, match="no architecture is called"):
        find_architecture("fasterrcnn_resnet50_fpn")


def test_a_pattern_chooses_architectures():
    assert [arch.name for arch in architectures("vit_b_*")] == ["vit_b_16", "vit_b_32"]
    assert {arch.family for arch in architectures("resnet")} == {"resnet"}
    assert {"resnet18", "wide_resnet50_2"} <= {arch.name for arch in architectures("RESNET")}
    assert architectures("nothing*") == []
