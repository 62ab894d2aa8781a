"""Images that are like nothing a model was trained on: by the distance of their features, end to end too."""

import json

import numpy as np
import pytest
import torch
from conftest import draw_images, run_finetune
from PIL import Image

import finetune
from finetune.analysis.novelty import know_images


def cloud(number, axis, seed):
    """Return features that all point along an axis, more or less."""
    features = 0.2 * torch.rand(number, 16, generator=torch.Generator().manual_seed(seed))
    features[:, axis] += 1
    return features


def test_one_in_a_hundred_of_the_images_that_chose_the_distance_is_beyond_it():
    known = know_images(cloud(300, 0, seed=0), cloud(1000, 0, seed=1), fewest=300)
    assert 5 <= int(known.unlike(cloud(1000, 0, seed=1)).sum()) <= 10
    assert known.unlike(cloud(50, 1, seed=2)).all()


def test_the_distance_is_that_from_the_third_nearest_by_the_cosine():
    train = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0], [-1.0, 0.0]])
    known = know_images(train, train, fewest=31)
    cosines = torch.tensor([1.0, 0.0, 0.5**0.5, -1.0])
    assert known.distances(torch.tensor([[9.0, 0.0]])).item() == pytest.approx(
        1 - float(cosines.sort().values[1])
    )


def test_where_a_class_has_few_images_it_is_the_nearest_so_that_what_was_trained_on_is_like():
    train = torch.cat([cloud(300, 0, seed=0), cloud(2, 1, seed=1)])
    for fewest, unlike in ((2, 0), (31, 2)):
        known = know_images(train, cloud(1000, 0, seed=2), fewest=fewest)
        assert int(known.unlike(train[-2:]).sum()) == unlike


def test_fewer_images_than_neighbours_are_enough():
    known = know_images(torch.eye(2), torch.eye(2), fewest=31)
    assert known.distances(torch.tensor([[1.0, 0.0]])).item() == pytest.approx(1.0)


def test_predict_marks_what_is_unlike_the_training_images(small_run, images, tmp_path):
    stripes = np.zeros((40, 48, 3), dtype=np.uint8)
    stripes[::2] = 255
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    own = sorted(images.rglob("*.png"))
    answers = json.loads(run_finetune("predict", small_run, *own, tmp_path / "stripes.png", "--json").stdout)
    *like, other = [answer["unlike"] for answer in answers]
    assert sum(like) <= 0.1 * len(like)
    assert other is True
    shown = run_finetune("predict", small_run, tmp_path / "stripes.png").stdout
    assert "unlike all that the model was trained on: 1 of 1 image" in shown
    assert finetune.load(small_run).predict(str(tmp_path / "stripes.png")).unlike is True


def test_a_copy_of_the_model_alone_does_not_know(small_run, images, tmp_path):
    for name in ("model.safetensors", "model.json", "digests.json"):
        (tmp_path / name).write_bytes((small_run / name).read_bytes())
    (answer,) = json.loads(run_finetune("predict", tmp_path, next(images.rglob("*.png")), "--json").stdout)
    assert answer["unlike"] is None
    assert 0 < answer["certainty"] <= 1


def test_a_changed_file_of_known_images_is_refused(small_run, images, tmp_path):
    for path in small_run.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    content = bytearray((tmp_path / "known.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "known.safetensors").write_bytes(content)
    result = run_finetune("predict", tmp_path, next(images.rglob("*.png")))
    assert result.exit_code == 5
    assert "known.safetensors is damaged or was changed" in result.stderr


def test_known_images_whose_digest_is_gone_are_refused(small_run, images, tmp_path):
    for path in small_run.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    digests = json.loads((tmp_path / "digests.json").read_text())
    del digests["known.safetensors"]
    (tmp_path / "digests.json").write_text(json.dumps(digests))
    assert run_finetune("predict", tmp_path, next(images.rglob("*.png"))).exit_code == 5


def test_many_training_images_are_thinned(tmp_path, monkeypatch):
    from conftest import write_small_config

    monkeypatch.setattr("finetune.commands.train.assess._MOST_KNOWN", 10)
    config = write_small_config(tmp_path, draw_images(tmp_path / "images"))
    assert run_finetune("train", config, "--run-dir", tmp_path / "run").exit_code == 0
    known = finetune.load(tmp_path / "run")._trained.known
    assert len(known.directions) == 10
