"""Test-time augmentation: which views a model looks at, and that its answer is the mean over them."""

import csv
import io
import json
import shutil

import numpy as np
import pytest
import torch
from conftest import rewrite, run_finetune, write_small_config
from PIL import Image
from several import draw_several

import finetune
from finetune.data.images import ImageLimits, read_image
from finetune.data.loading.transforms import eval_transform, mirrors
from finetune.data.loading.views import count_views, view_transform
from finetune.model.preprocessing import Preprocessing
from finetune.runs.trained_model import load_trained


def preprocessing(image_size=32, resize_size=36):
    return Preprocessing(image_size, resize_size, (0.0,) * 3, (1.0,) * 3, "bilinear")


def photograph(width=96, height=54):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("mirror", [False, True])
def test_the_first_view_is_that_of_evaluation_and_the_rest_differ_from_it(mirror):
    views = view_transform(preprocessing(), mirror=mirror)(photograph())
    assert views.shape == (count_views(mirror=mirror), 3, 32, 32)
    assert views.dtype == torch.uint8
    assert torch.equal(views[0], eval_transform(preprocessing())(photograph()))
    assert len({view.numpy().tobytes() for view in views}) == len(views)


def test_half_of_the_views_are_mirrored_where_training_mirrored():
    views = view_transform(preprocessing(), mirror=True)(photograph())
    assert torch.equal(views[2:], views[:2].flip(-1))
    assert torch.equal(views[:2], view_transform(preprocessing(), mirror=False)(photograph()))


def test_the_wider_view_shows_more_of_the_longer_side_and_a_square_image_whole():
    image = Image.new("RGB", (100, 64))
    image.paste((255, 0, 0), (0, 0, 12, 64))  # beyond the 64 pixels of the centre, within the 80 of the mean
    usual, wider = view_transform(preprocessing(32, 32), mirror=False)(image)
    assert usual[0].max() == 0
    assert wider[0, :, 0].min() > 100
    square = Image.new("RGB", (64, 64))
    square.paste((255, 0, 0), (0, 0, 2, 64))
    usual, wider = view_transform(preprocessing(32, 40), mirror=False)(square)
    assert usual[0].max() == 0
    assert wider[0, :, 0].min() > 100


@pytest.mark.parametrize(
    ("level", "mirrored"),
    [("none", 0), ("light", 0), ("standard", 1), ("strong", 1), ("randaugment", 1), ("trivial", 1)],
)
def test_only_some_augmentations_mirror(level, mirrored):
    assert mirrors(level) == mirrored


@pytest.fixture(scope="module")
def mirrored_run(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mirrored")
    config = write_small_config(folder, images)
    result = run_finetune("train", config, "data.augment=standard", "--run-dir", folder / "run")
    assert result.exit_code == 0, result.output
    return folder / "run"


def expected_logits(run, paths):
    """Average the logits of the views by hand."""
    trained = load_trained(run, torch.device("cpu"))
    make = view_transform(trained.model.preprocessing, mirror=trained.mirrored)
    views = [make(read_image(path, ImageLimits())) for path in paths]
    with torch.inference_mode():
        return torch.stack([trained.model(of_image).mean(0) for of_image in views])


def test_a_prediction_is_the_softmax_of_the_mean_logits_over_the_views(mirrored_run, images):
    paths = sorted(images.rglob("*.png"))[:4]
    result = run_finetune("predict", mirrored_run, *paths, "--tta", "--json")
    assert "the mean over 4 views of each image, mirrored ones too" in result.stderr
    answers = json.loads(result.stdout)
    temperature = json.loads((mirrored_run / "model.json").read_text())["temperature"]
    probabilities = (expected_logits(mirrored_run, paths) / temperature).softmax(1)
    assert set(answers[0]) == {"image", "predictions", "certainty", "unlike", "error"}
    for answer, expected in zip(answers, probabilities, strict=True):
        given = sorted((entry["class"], entry["probability"]) for entry in answer["predictions"])
        assert [value for _, value in given] == pytest.approx(expected.tolist(), abs=1e-6)
    rows = csv.DictReader(io.StringIO(run_finetune("predict", mirrored_run, *paths, "--tta", "--csv").stdout))
    first = next(rows)
    assert float(first["probability"]) == pytest.approx(answers[0]["predictions"][0]["probability"])
    plain = json.loads(run_finetune("predict", mirrored_run, *paths, "--json").stdout)
    assert plain != answers


def test_evaluate_says_in_its_json_that_views_were_averaged(mirrored_run, small_run):
    plain = json.loads(run_finetune("evaluate", mirrored_run, "--json").stdout)
    result = run_finetune("evaluate", mirrored_run, "--tta", "--json")
    scores = json.loads(result.stdout)
    assert "tta" not in plain
    assert scores.pop("tta") == {"views": 4, "mirrored": True}
    assert set(scores) == set(plain)
    assert scores["loss"] != plain["loss"]
    result = run_finetune("evaluate", small_run, "--tta", "--json")  # `light` mirrors nothing
    assert json.loads(result.stdout)["tta"] == {"views": 2, "mirrored": False}
    assert "2 views of each image; none mirrored, because training mirrored none" in result.stderr


def test_the_score_is_that_of_the_mean_logits(mirrored_run, images):
    trained = load_trained(mirrored_run, torch.device("cpu"))
    rows = [row for row in trained.run.read_split() if row.split == "val"]
    logits = expected_logits(mirrored_run, [images / row.name for row in rows])
    targets = torch.tensor([trained.class_names.index(row.class_name) for row in rows])
    loss = torch.nn.functional.cross_entropy(logits, targets)
    scores = finetune.evaluate(mirrored_run, tta=True, quiet=True)
    assert scores.loss == pytest.approx(float(loss), rel=1e-4)


def test_python_predicts_with_views_and_the_model_stays_as_it_is(mirrored_run):
    model = finetune.load(mirrored_run)
    image = photograph()
    plain, averaged = model.predict(image), model.predict(image, tta=True)
    assert plain.probabilities != averaged.probabilities
    assert model.predict(image).probabilities == plain.probabilities
    assert model.preprocess(image).shape == (3, 32, 32)
    assert model.evaluate(tta=True, quiet=True) == finetune.evaluate(mirrored_run, tta=True, quiet=True)


def test_several_classes_keep_their_thresholds_and_metadata_stands_beside_every_view(tmp_path):
    table = draw_several(tmp_path / "images", each=4)
    config = write_small_config(tmp_path, table)
    several = ("data.label_separator=;", "data.columns.label=label", "data.columns.metadata=[red]")
    run = tmp_path / "run"
    result = run_finetune("train", config, *several, "data.augment=standard", "--run-dir", run)
    assert result.exit_code == 0, result.output
    thresholds = json.loads((run / "model.json").read_text())["thresholds"]
    scores = json.loads(run_finetune("evaluate", run, "--tta", "--json").stdout)
    assert [row["threshold"] for row in scores["per_class"]] == thresholds
    assert scores["tta"] == {"views": 4, "mirrored": True}
    plain, averaged = (
        json.loads(run_finetune("predict", run, table, "--json", *more).stdout) for more in ((), ("--tta",))
    )
    assert [answer["image"] for answer in plain] == [answer["image"] for answer in averaged]
    assert plain != averaged
    for answer in averaged:
        by_name = {entry["class"]: entry for entry in answer["predictions"]}
        assert set(answer["labels"]) == {
            name for name, entry in by_name.items() if entry["probability"] >= entry["threshold"]
        }


def test_a_run_that_does_not_say_whether_it_mirrored_is_not_mirrored(mirrored_run, tmp_path):
    copy = shutil.copytree(mirrored_run, tmp_path / "run")
    rewrite(copy, "model.json", lambda model: model.pop("mirrored"))
    scores = json.loads(run_finetune("evaluate", copy, "--tta", "--json").stdout)
    assert scores["tta"] == {"views": 2, "mirrored": False}


def test_an_image_that_cannot_be_read_has_its_reason_with_views_too(mirrored_run, tmp_path):
    (tmp_path / "torn.png").write_bytes(b"no image")
    result = run_finetune("predict", mirrored_run, tmp_path / "torn.png", "--tta", "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)[0]["error"]
