"""Put a backbone into a config file: only its architecture and weights change."""

import pytest

from finetune.config.load import load_config
from finetune.config.model_editor import check_model, write_model
from finetune.errors import ConfigError

# Layouts: the architecture stands at @, the weights at %.
BOTH = {
    "flow": "data: {path: p}\nmodel: {arch: @, weights: %, layer_groups: 4}  # here\nseed: 3\n",
    "block": "data:\n  path: p\nmodel:\n  # the network\n  arch: @     # any\n"
    "  weights: %   # default\n  layer_groups: 4\n",
    "weights first": "model:\n  weights: %\n  arch: @\ndata: {path: p}\n",
    "all flow": "{data: {path: p}, model: {weights: %, arch: @}}\n",
}


def fill(text, arch, weights):
    return text.replace("@", arch).replace("%", weights)


@pytest.mark.parametrize("text", BOTH.values(), ids=BOTH)
def test_only_architecture_and_weights_change(text, tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(fill(text, "resnet34", "default"))
    check_model(path)
    write_model(path, "resnet50", "IMAGENET1K_V1")
    assert path.read_text() == fill(text, "resnet50", "IMAGENET1K_V1")


def test_default_weights_are_not_written_where_none_stand(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(
        "data: {path: p}\nmodel:\n  arch: 'resnet34'# old\n  layer_groups: 4\n".replace("'#", "' #")
    )
    write_model(path, "timm:tf_efficientnet_lite0", "default")
    expected = 'data: {path: p}\nmodel:\n  arch: "timm:tf_efficientnet_lite0" # old\n  layer_groups: 4\n'
    assert path.read_text() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model: {arch: resnet34}\n", "model: {arch: resnet50, weights: IMAGENET1K_V1}\n"),
        (
            "model:\n  arch: resnet34  # old\n  layer_groups: 4\n",
            "model:\n  arch: resnet50\n  weights: IMAGENET1K_V1  # old\n  layer_groups: 4\n",
        ),
        ("", "model: {arch: resnet50, weights: IMAGENET1K_V1}\n"),
    ],
)
def test_weights_that_are_not_the_default_find_a_place(text, expected, tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("data: {path: p}\n" + text)
    check_model(path)
    write_model(path, "resnet50", "IMAGENET1K_V1")
    assert path.read_text() == "data: {path: p}\n" + expected
    assert load_config(path).model.weights == "IMAGENET1K_V1"


def test_a_file_without_a_last_line_end_gets_its_model_on_a_new_line(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("data: {path: p}")
    write_model(path, "resnet50", "default")
    assert path.read_text() == "data: {path: p}\nmodel: {arch: resnet50}\n"


@pytest.mark.parametrize(
    "text",
    [
        "data: {path: p}\nmodel: {layer_groups: 4}\n",
        "data: {path: p}\nmodel:\n",
        "{data: {path: p}}\n",
        "data: {path: p}\nmodel: {arch: }\n",
    ],
)
def test_a_file_without_a_place_is_refused_and_stays(text, tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(text)
    for call in (lambda: check_model(path), lambda: write_model(path, "resnet50", "default")):
        with pytest.raises(
            ConfigError, match=r"there is no model.arch that --write could replace.\nWrite it"
        ):
            call()
    assert path.read_text() == text
