"""Training a head on cached features: the bits of the live training, and views that come again."""

import json
import os

import pytest
import torch
from conftest import run_finetune, some_quick, write_small_config
from run_result import result_of
from several import draw_several
from test_lr_search import FAST, prepare
from test_recipe import SEPARATED, config_of, train
from test_resume import as_if_killed_at

from finetune.config.load import load_config
from finetune.data.loading.dataset import EvalImages
from finetune.data.loading.sampler import EpochSampler, balanced_order
from finetune.data.loading.transforms import eval_transform
from finetune.experiment.loaders import build_loaders
from finetune.experiment.lr_search import build_trial
from finetune.model import ImageClassifier
from finetune.training.feature_views import FeatureViews, FixedView, Source

LENGTHS = ("stages.frozen.epochs=3", "stages.unfrozen.epochs=1")
N, BATCH = 11, 4


class Camera:
    """Shows each key as an image of one pixel; remembers the sizes of the batches that it was asked for."""

    def __init__(self):
        self.sizes = []

    def __call__(self, keys):
        for start in range(0, len(keys), BATCH):
            batch = keys[start : start + BATCH]
            self.sizes.append(len(batch))
            pixels = [[key.position, key.seed % 1000] for key in batch]
            yield torch.tensor(pixels)[:, :, None, None].float(), torch.tensor([k.position for k in batch])


def views(number, epochs, *, order=None):
    camera = Camera()
    source = Source(
        order=EpochSampler(N, BATCH, 0, order),
        read=camera,
        others=(torch.arange(N),),
        extract=lambda images: images[:, :, 0, 0] + 0.5,
        device=torch.device("cpu"),
    )
    return FeatureViews(source, batch_size=BATCH, views=number, epochs=epochs), camera


def epoch(loader, number, first_batch=0):
    loader.sampler.start_epoch(0, number, first_batch)
    return list(loader)


def test_a_new_view_in_each_epoch_is_what_the_live_training_shows():
    loader, camera = views(3, 3)
    sampler = EpochSampler(N, BATCH, 0)
    for number in range(3):
        sampler.start_epoch(0, number)
        keys = list(sampler)
        batches = epoch(loader, number)
        assert len(batches) == len(loader) == 2
        for index, (features, targets) in enumerate(batches):
            shown = keys[index * BATCH : (index + 1) * BATCH]
            assert targets.tolist() == [key.position for key in shown]
            assert features[:, 1].tolist() == [key.seed % 1000 + 0.5 for key in shown]
    assert camera.sizes == [BATCH] * 6  # nothing is computed that no epoch shows


def test_views_come_again_in_turn_in_the_order_of_their_epoch():
    loader, camera = views(2, 6)
    seen = {}
    for number in range(6):
        computed = len(camera.sizes)
        for features, targets in epoch(loader, number):
            for row, target in zip(features, targets, strict=True):
                assert row[0] == target + 0.5
                seen.setdefault((number % 2, int(target)), set()).add(float(row[1]))
        assert (len(camera.sizes) > computed) == (number < 2)
    assert all(len(seeds) == 1 for seeds in seen.values())
    orders = [[int(t) for _, targets in epoch(loader, number) for t in targets] for number in (2, 4)]
    assert orders[0] != orders[1]


def test_a_training_that_goes_on_in_another_process_shows_the_same():
    whole, _ = views(2, 4)
    expected = [epoch(whole, number) for number in range(4)]
    for number, first in ((0, 1), (1, 1), (2, 0), (3, 1)):
        resumed, _ = views(2, 4)
        shown = epoch(resumed, number, first)
        assert len(shown) == len(expected[number]) - first
        for batch, other in zip(shown, expected[number][first:], strict=True):
            assert all(map(torch.equal, batch, other))
        for later in range(number + 1, 4):
            for batch, other in zip(epoch(resumed, later), expected[later], strict=True):
                assert all(map(torch.equal, batch, other))


def test_an_image_that_comes_again_in_an_epoch_shows_its_next_view():
    def often(seed):
        return [5, 5, 5, *range(5), 5, 6, 7]  # 8, 9 and 10 are left out

    loader, _ = views(2, 4, order=often)
    epoch(loader, 0), epoch(loader, 1)
    features, targets = epoch(loader, 2)[0]
    assert targets.tolist() == [5, 5, 5, 0]
    assert features[0, 1] != features[1, 1]
    assert features[0, 1] == features[2, 1]  # there are two


def test_balanced_classes_repeat_images_and_leave_others_out():
    targets = [0] * 9 + [1, 1]
    weights = [11 / 18] * 9 + [2.75, 2.75]
    loader, _ = views(2, 5, order=lambda seed: balanced_order(targets, [weights[0], weights[-1]], seed))
    for number in range(5):
        for features, shown in epoch(loader, number):
            assert features[:, 0].tolist() == [target + 0.5 for target in shown.tolist()]


def test_a_fixed_view_comes_in_the_order_of_each_epoch():
    order = EpochSampler(N, BATCH, 0)
    parts = (torch.arange(N) + 0.5)[:, None], torch.arange(N)
    fixed = FixedView(order, parts, batch_size=BATCH)
    assert len(fixed) == 2
    for number in range(3):
        expected = [key.position for key in order.keys(0, number)][: 2 * BATCH]
        shown = epoch(fixed, number)
        assert [len(targets) for _, targets in shown] == [BATCH, BATCH]
        assert torch.cat([targets for _, targets in shown]).tolist() == expected
        assert torch.cat([features for features, _ in shown])[:, 0].tolist() == [n + 0.5 for n in expected]
        (last,) = epoch(fixed, number, first_batch=1)
        assert torch.equal(last[1], shown[1][1])


# With real networks and files


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    return draw_several(tmp_path_factory.mktemp("several"))


KINDS = {
    "one label": (),
    "sampler": ("data.balance=sampler",),
    "accumulated": ("data.batch_size=4", "data.accumulate=2"),
    "with workers": ("data.workers=2",),
    "random weights": ("model.weights=none",),
    "bfloat16": ("precision=bfloat16",),
    "another size": ("stages.frozen.image_size=24",),
    "after a search": ("stages.frozen.lr=auto", *FAST),
}


def without_mention(run):
    """Return the result of a run, but for what says whether its features were cached."""
    result = result_of(run)
    del result["config"]
    result["events"] = [event for event in result["events"] if event["event"] != "first_score"]
    return result


@pytest.mark.parametrize(
    "kind",
    some_quick(KINDS, "one label", "after a search"),
)
def test_cached_is_live_to_the_last_bit(kind, images, tmp_path):
    config = write_small_config(tmp_path, images)
    for name in ("live", "cached"):
        train(config, tmp_path / name, *LENGTHS, *KINDS[kind], f"stages.frozen.features={name}")
    assert without_mention(tmp_path / "cached") == without_mention(tmp_path / "live")


@pytest.mark.parametrize("views", [2, "eval"])
def test_views_that_come_again_have_the_size_of_their_stage(views, images, tmp_path, monkeypatch):
    """The validation images have that of the data, so that the epochs of all stages compare."""
    config = write_small_config(tmp_path, images)
    sizes = set()
    forward = ImageClassifier.features

    def watch(self, pixels):
        sizes.add(pixels.shape[-1])
        return forward(self, pixels)

    monkeypatch.setattr(ImageClassifier, "features", watch)
    keys = ("stages.frozen.image_size=24", f"stages.frozen.views={views}", "stages.frozen.epochs=4")
    report = train(config, tmp_path / "run", *keys, "stages.unfrozen.epochs=1")
    usual = load_config(config).data.image_size
    assert sizes == {24, usual}
    assert report["val"]["accuracy"] > 0.8


@pytest.mark.slow
def test_with_several_labels_and_metadata_too(several, tmp_path):
    config = write_small_config(tmp_path, several)
    keys = (SEPARATED, "data.columns.metadata={red: number}", *LENGTHS)
    for name in ("live", "cached"):
        train(config, tmp_path / name, *keys, f"stages.frozen.features={name}")
    assert without_mention(tmp_path / "cached") == without_mention(tmp_path / "live")


@pytest.mark.parametrize("how", ["eval", "2", "null"])
@pytest.mark.slow
def test_a_run_that_was_killed_ends_as_if_it_had_not_been(how, images, tmp_path):
    config, whole = config_of(tmp_path, images), tmp_path / "whole"
    keys = ("stages.frozen.epochs=4", f"stages.frozen.views={how}", "stages.unfrozen.lr=slice(1e-4, 1e-2)")
    train(config, whole, *keys)
    names = [name for name in sorted(os.listdir(whole / "checkpoints")) if name.startswith("00-")]
    for name in (names[0], names[len(names) // 2], names[-2]):
        as_if_killed_at(name, whole, tmp_path / name)
        result = run_finetune("train", "--resume", tmp_path / name)
        assert result.exit_code == 0, result.output
        assert result_of(tmp_path / name) == result_of(whole)


def test_what_a_search_has_computed_is_not_computed_again(images, tmp_path, seen):
    config = write_small_config(tmp_path, images)
    train(config, tmp_path / "run", "stages.frozen.epochs=1", "stages.frozen.lr=auto", *FAST, *LENGTHS[1:])
    # The batches of an epoch, and the images to validate on; in the end all of them, by the best model.
    assert sum(seen) == 3 * 8 + 6 + 36


def test_the_backbone_sees_each_view_once(images, tmp_path, seen):
    config = write_small_config(tmp_path, images)
    report = train(
        config, tmp_path / "run", "stages.frozen.epochs=20", "stages.frozen.views=eval", *LENGTHS[1:]
    )
    assert sum(seen) == 36 + 36  # 30 images to train on and 6 to validate on; in the end by the best model
    assert report["val"]["accuracy"] > 0.9


def first_score_of(run):
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    first = next(number for number, event in enumerate(events) if event["event"] == "step")
    (score,) = [event for event in events[:first] if event["event"] == "first_score"]
    return score


def test_a_linear_fit_to_the_features_is_shown_before_anything_is_trained(images, tmp_path):
    config = write_small_config(tmp_path, images)
    result = run_finetune("train", config, "--run-dir", tmp_path / "run", *LENGTHS)
    score = first_score_of(tmp_path / "run")["val_accuracy"]
    line = f"ridge   accuracy {score:.2%}, of a linear fit to the features; nothing is trained yet\n"
    assert result.stdout.index(line) < result.stdout.index("stage 1 of 2")
    assert score > 0.8  # the colours of these images lie apart


def test_of_images_with_several_classes_the_linear_fit_is_shown_by_its_map(several, tmp_path):
    config = write_small_config(tmp_path, several)
    result = run_finetune("train", config, "--run-dir", tmp_path / "run", SEPARATED, *LENGTHS)
    score = first_score_of(tmp_path / "run")["val_map"]
    assert f"ridge   mAP {score:.4f}, of a linear fit" in result.stdout
    assert score > 0.8


@pytest.mark.parametrize("key", ["stages.frozen.features=live", "stages.frozen.train=all"])
def test_without_cached_features_there_is_no_linear_fit(key, images, tmp_path):
    config = write_small_config(tmp_path, images)
    result = run_finetune("train", config, "--run-dir", tmp_path / "run", *LENGTHS, key)
    assert result.exit_code == 0
    assert "ridge" not in result.stdout


def test_train_and_check_say_what_is_computed(images, tmp_path):
    config = write_small_config(tmp_path, images)
    keys = ("stages.frozen.epochs=9", "stages.frozen.views=3")
    for command in (("train", "--run-dir", tmp_path / "run"), ("check",)):
        result = run_finetune(*command, config, *keys)
        assert result.exit_code == 0, result.output
        assert "features: 3 views of each image; after 3 epochs only the head is computed" in result.stdout


@pytest.mark.parametrize(
    ("keys", "where"),
    [
        (("stages.unfrozen.features=cached",), "stages.unfrozen.features: "),
        (("stages.unfrozen.views=2",), "stages.unfrozen.views: "),
        (("stages.frozen.batch_norm=train", "stages.frozen.features=cached"), "stages.frozen.features: "),
        (("stages.frozen.features=live", "stages.frozen.views=eval"), "stages.frozen.views: "),
        (("stages.frozen.views=0",), "stages.frozen.views: expected eval, null or a whole number from 1"),
        (("data.mixup=0.2", "stages.frozen.views=2"), "stages.frozen.views: mixed images"),
        (("data.cutmix=1", "stages.frozen.features=cached"), "stages.frozen.features: mixed images"),
    ],
)
def test_what_cannot_be_cached_is_refused(keys, where, images, tmp_path):
    result = run_finetune("train", write_small_config(tmp_path, images), *keys)
    assert result.exit_code == 2
    assert where in result.stderr
    assert "Traceback" not in result.stderr


def test_a_rate_is_found_on_the_view_that_the_stage_shows(images, tmp_path):
    config = load_config(write_small_config(tmp_path, images), ["stages.frozen.views=eval"])
    experiment = prepare(config)
    trial = build_trial(experiment, 0, build_loaders(experiment), 3)
    shown = EvalImages(
        experiment.index, experiment.limits, eval_transform(experiment.model.preprocessing), split="train"
    )
    experiment.model.train()
    with torch.no_grad():
        expected = experiment.model.features(torch.stack([item.image for item in shown]))
    trial.train.sampler.start_epoch(0, 0)
    for features, _ in trial.train:
        distances = torch.cdist(features, expected).min(dim=1).values
        assert distances.max() < 1e-3 * expected.norm(dim=1).mean()
