"""Stored features of images: the bits that a model computes now, or computed anew; shared only by equals."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT, draw_images, run_finetune, some_quick, write_small_config
from PIL import Image
from run_result import result_of
from several import draw_several
from test_lr_search import FAST

from finetune.config.load import load_config
from finetune.data.images import ImageLimits
from finetune.errors import ConfigError
from finetune.experiment.build import build_experiment
from finetune.experiment.image_features import batch_sizes, image_features, left_to_compute
from finetune.experiment.read_data import read_data
from finetune.experiment.stored_features import namespace_of
from finetune.model import ImageClassifier


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Return a cache folder with room for features."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FINETUNE_CACHE_SIZE", "1GB")
    return tmp_path / "cache" / "finetune"


@pytest.fixture
def own(tmp_path):
    """Return a folder of images that a test may change."""
    return draw_images(tmp_path / "own")


def experiment_of(folder, path, *overrides):
    config = load_config(write_small_config(folder, path), list(overrides))
    return build_experiment(config, torch.device("cpu"), read_data(config))


def without_store(experiment, monkeypatch, split="train"):
    with monkeypatch.context() as patch:
        patch.setenv("FINETUNE_CACHE_SIZE", "0")
        return image_features(experiment, split)


def segments(cache):
    return sorted(cache.glob("features/*/*.safetensors"))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("pool", ["avg+max", "max"])
def test_what_is_found_is_what_was_computed_to_the_last_bit(
    precision, pool, images, tmp_path, seen, monkeypatch
):
    experiment = experiment_of(tmp_path, images, f"precision={precision}", f"model.head.pool={pool}")
    live = without_store(experiment, monkeypatch)
    cold = image_features(experiment, "train")
    assert sum(seen) == 30 * 2 + 8 + 6  # each size of a batch once more, to see whether rows stand alone
    warm = image_features(experiment, "train")
    assert sum(seen) == 30 * 2 + 8 + 6
    assert torch.equal(cold.features, live.features)
    assert torch.equal(warm.features, live.features)
    assert (live.reused, cold.reused, warm.reused) == (0, 0, 30)


def test_targets_and_metadata_are_those_of_now(tmp_path, monkeypatch):
    table = draw_several(tmp_path / "several")
    keys = ('data.label_separator=";"', "data.columns.metadata={red: number}")
    experiment = experiment_of(tmp_path, table, *keys)
    live, _, warm = (
        without_store(experiment, monkeypatch),
        *(image_features(experiment, "train") for _ in "ab"),
    )
    assert warm.reused == len(warm.samples) > 0
    assert torch.equal(warm.features, live.features)
    assert torch.equal(warm.targets, live.targets)
    assert [part.shape for part in warm.metadata] == [(len(live.samples), 0), (len(live.samples), 2)]
    assert all(map(torch.equal, warm.metadata, live.metadata))


def test_a_split_of_another_seed_computes_what_is_new_to_its_batches(images, tmp_path, monkeypatch):
    """Images of full batches are found although other images are beside them."""
    image_features(experiment_of(tmp_path, images), "train")
    other = experiment_of(tmp_path, images, "seed=5")
    found = image_features(other, "train")
    assert 0 < found.reused < 30
    assert torch.equal(found.features, without_store(other, monkeypatch).features)


@pytest.mark.parametrize(
    "override",
    [
        "data.image_size=48",
        "precision=bfloat16",
        "model.head.pool=avg",
        "data.batch_size=7",
        "model.weights=none",
        "memory_format=contiguous",
        "data.background='#000000'",
        "data.max_pixels=1000000",
    ],
)
def test_experiments_that_differ_in_what_features_depend_on_share_none(
    override, images, tmp_path, monkeypatch
):
    image_features(experiment_of(tmp_path, images), "train")
    other = experiment_of(tmp_path, images, override)
    found = image_features(other, "train")
    assert found.reused == 0
    assert torch.equal(found.features, without_store(other, monkeypatch).features)


@pytest.mark.parametrize(
    "override", ["lr_finder.steps=40", "data.augment=none", "model.head.hidden=[]", "data.workers=2"]
)
def test_what_features_do_not_depend_on_is_no_reason_to_compute_them(override, images, tmp_path):
    image_features(experiment_of(tmp_path, images), "train")
    assert image_features(experiment_of(tmp_path, images, override), "train").reused == 30


def test_weights_that_have_moved_are_others(images, tmp_path):
    experiment = experiment_of(tmp_path, images)
    for change in (lambda p: p.add_(1e-6), lambda p: p.neg_()):
        image_features(experiment, "train")
        with torch.no_grad():
            change(next(experiment.model.backbone.parameters()))
        assert image_features(experiment, "train").reused == 0
    buffer = next(b for b in experiment.model.backbone.buffers() if b.is_floating_point())
    buffer += 1
    assert image_features(experiment, "train").reused == 0


def test_the_machine_and_its_settings_are_part_of_the_name(images, tmp_path, monkeypatch):
    model = experiment_of(tmp_path, images).model

    def name():
        return namespace_of(model, model.preprocessing, ImageLimits())

    names = [name()]
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    names.append(name())
    torch.set_num_threads(threads)
    assert name() == names[0]
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "another")
    names.append(name())
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    names.append(name())
    monkeypatch.setattr("finetune.machine.provenance.version", lambda library: "another")
    names.append(name())
    assert len(set(names)) == len(names)


def test_a_file_that_changes_between_two_runs_is_computed_anew(own, tmp_path, seen, monkeypatch):
    experiment = experiment_of(tmp_path, own)
    before = image_features(experiment, "train")
    changed = before.samples[3].name
    time.sleep(0.02)
    Image.new("RGB", (48, 40), "red").save(own / changed)
    after = image_features(experiment, "train")
    assert after.reused == 29
    live = without_store(experiment, monkeypatch)
    assert torch.equal(after.features, live.features)
    assert not torch.equal(after.features[3], before.features[3])
    assert torch.equal(after.features[4], before.features[4])


def test_a_file_that_is_renamed_or_copied_is_known(own, tmp_path):
    image_features(experiment_of(tmp_path, own), "train")
    moved = tmp_path / "moved"
    own.rename(moved)
    assert image_features(experiment_of(tmp_path, moved), "train").reused == 30


@pytest.mark.parametrize("back", [False, True])
def test_a_file_that_changes_while_it_is_read_leaves_no_row(back, own, tmp_path, monkeypatch):
    """It is replaced after its digest was taken and before it is decoded; then perhaps put back."""
    experiment = experiment_of(tmp_path, own, "data.workers=0")
    name = experiment.index.of_split("train")[3].name
    original, features = (own / name).read_bytes(), ImageClassifier.features
    load = Image.open

    def replaced_first(path, *arguments, **named):
        if str(getattr(path, "name", path)).endswith(name) and (own / name).read_bytes() == original:
            time.sleep(0.02)
            Image.new("RGB", (48, 40), "red").save(own / name)
            path.seek(0) if hasattr(path, "seek") else None
        return load(path, *arguments, **named)

    def put_back(self, images):
        if back:
            (own / name).write_bytes(original)
        return features(self, images)

    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", replaced_first)
        patch.setattr(ImageClassifier, "features", put_back)
        image_features(experiment, "train")
    found = image_features(experiment, "train")
    assert found.reused == 29
    assert torch.equal(found.features, without_store(experiment, monkeypatch).features)


def test_a_file_that_has_gone_is_an_error_as_without_a_store(own, tmp_path):
    experiment = experiment_of(tmp_path, own)
    image_features(experiment, "train")
    name = experiment.index.of_split("train")[3].name
    (own / name).unlink()
    with pytest.raises(Exception, match="it has changed since the scan"):
        image_features(experiment, "train")


def test_damaged_segments_change_nothing(images, tmp_path, cache, monkeypatch):
    experiment = experiment_of(tmp_path, images)
    live = without_store(experiment, monkeypatch)
    image_features(experiment, "train")
    (segment,) = segments(cache)
    damaged = bytearray(segment.read_bytes())
    damaged[-5] ^= 16
    segment.write_bytes(damaged)
    found = image_features(experiment, "train")
    assert found.reused == 29
    assert torch.equal(found.features, live.features)
    for segment in segments(cache):
        os.truncate(segment, segment.stat().st_size // 2)
    assert torch.equal(image_features(experiment, "train").features, live.features)
    assert image_features(experiment, "train").reused == 30


def test_a_cache_folder_that_cannot_be_written_costs_nothing_else(images, tmp_path, cache, monkeypatch):
    experiment = experiment_of(tmp_path, images)
    cache.rename(cache.parent / "gone")
    cache.write_text("a file where the folder should be")
    for _ in range(2):
        found = image_features(experiment, "train")
        assert found.reused == 0
        assert torch.equal(found.features, without_store(experiment, monkeypatch).features)


def test_no_store_without_room_and_none_for_images_of_the_package(images, tmp_path, cache, monkeypatch):
    image_features(experiment_of(tmp_path, "builtin:digits", "data.images_per_class=4"), "val")
    without_store(experiment_of(tmp_path, images), monkeypatch)
    assert not (cache / "features").exists()
    assert not (cache / "digests").exists()


@pytest.mark.parametrize("size", ["much", "-1GB", "5 apples", "1e9"])
def test_a_bound_that_is_no_size_is_refused(size, images, tmp_path, monkeypatch):
    experiment = experiment_of(tmp_path, images)
    monkeypatch.setenv("FINETUNE_CACHE_SIZE", size)
    with pytest.raises(ConfigError, match=r"FINETUNE_CACHE_SIZE: expected a size such as 5GB"):
        image_features(experiment, "train")


def test_features_that_depend_on_their_place_are_not_stored(images, tmp_path, cache, monkeypatch):
    experiment = experiment_of(tmp_path, images)
    features = ImageClassifier.features

    def by_place(self, images):
        return features(self, images) + torch.arange(len(images))[:, None] * 1e-6

    monkeypatch.setattr(ImageClassifier, "features", by_place)
    live = without_store(experiment, monkeypatch)
    for _ in range(2):
        found = image_features(experiment, "train")
        assert found.reused == 0
        assert torch.equal(found.features, live.features)
    assert segments(cache) == []


def test_stored_features_are_not_used_once_places_matter(images, tmp_path, monkeypatch):
    experiment = experiment_of(tmp_path, images)
    image_features(experiment, "val")
    features = ImageClassifier.features

    def by_place(self, images):
        return features(self, images) + torch.arange(len(images))[:, None] * 1e-6

    other = experiment_of(tmp_path, images, "seed=3")
    monkeypatch.setattr(ImageClassifier, "features", by_place)
    found = image_features(other, "train")
    assert found.reused == 0
    assert torch.equal(found.features, without_store(other, monkeypatch).features)


def test_missing_images_are_computed_in_batches_of_their_size():
    sizes = batch_sizes(11, 4)
    assert sizes == [4] * 8 + [3] * 3
    assert left_to_compute(sizes, {}) == list(range(11))
    assert left_to_compute(sizes, range(11)) == []
    assert left_to_compute(sizes, [n for n in range(11) if n != 6]) == [6, 0, 1, 2]
    assert left_to_compute(sizes, [n for n in range(11) if n != 9]) == [8, 9, 10]
    assert left_to_compute(sizes, [0, 2, 8]) == [1, 3, 4, 5, 6, 7, 0, 2, 8, 9, 10]
    assert batch_sizes(3, 4) == [3, 3, 3]
    assert left_to_compute([3, 3, 3], [1]) == [0, 2, 1]
    assert left_to_compute([], {}) == []


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from finetune.config.load import load_config
from finetune.experiment.build import build_experiment
from finetune.experiment.image_features import image_features
from finetune.experiment.read_data import read_data
from finetune.machine import cache

config = load_config(Path(sys.argv[1]), [])
experiment = build_experiment(config, torch.device("cpu"), read_data(config))
replace = os.replace
def killed(source, target):
    if str(target).endswith(".safetensors"):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = killed
image_features(experiment, "train")
"""


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_writes_leaves_nothing_to_be_read(
    images, tmp_path, cache, monkeypatch
):
    experiment = experiment_of(tmp_path, images)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "small.yaml")]
    assert subprocess.run(command, cwd=ROOT).returncode == -signal.SIGKILL
    assert len(list(cache.glob("features/*/*.tmp"))) == 1
    found = image_features(experiment, "train")
    assert found.reused == 0
    assert torch.equal(found.features, without_store(experiment, monkeypatch).features)


# Trainings and searches

EVAL = ("stages.frozen.epochs=3", "stages.frozen.views=eval", "stages.unfrozen.epochs=1")
COMPUTED = "images are in the cache"


def train_into(folder, config, *keys):
    result = run_finetune("train", config, "--run-dir", folder, *keys)
    assert result.exit_code == 0, result.output
    return result_of(folder), result.stdout


KINDS = {
    "evaluation views": EVAL,
    "augmented views": ("stages.frozen.epochs=2", "stages.unfrozen.epochs=1"),
    "a size of its own": (*EVAL, "stages.frozen.image_size=48"),
    "accumulated": (*EVAL, "data.batch_size=4", "data.accumulate=2"),
    "balanced": (*EVAL, "data.balance=sampler"),
    "bfloat16": (*EVAL, "precision=bfloat16"),
    "with workers": (*EVAL, "data.workers=2"),
    "after a search": (*EVAL, "stages.frozen.lr=auto", *FAST),
}


@pytest.mark.parametrize(
    "kind",
    some_quick(KINDS, "evaluation views"),
)
def test_a_training_is_the_same_with_and_without_what_was_stored(kind, images, tmp_path, cache, monkeypatch):
    config, keys = write_small_config(tmp_path, images), KINDS[kind]
    with monkeypatch.context() as patch:
        patch.setenv("FINETUNE_CACHE_SIZE", "0")
        live, said = train_into(tmp_path / "live", config, *keys)
    assert COMPUTED not in said
    cold, said = train_into(tmp_path / "cold", config, *keys)
    assert COMPUTED not in said
    warm, said = train_into(tmp_path / "warm", config, *keys)
    whole = 6 if kind == "augmented views" else 36
    assert f"features: those of {whole} of {whole} {COMPUTED}" in said
    for segment in segments(cache)[1:]:  # of the validation, or of the training images
        segment.unlink()
    damaged = bytearray(segments(cache)[0].read_bytes())
    damaged[-1] ^= 1
    segments(cache)[0].write_bytes(damaged)
    half_warm, said = train_into(tmp_path / "half warm", config, *keys)
    assert COMPUTED in said
    assert live == cold == warm == half_warm


@pytest.mark.slow
def test_with_several_labels_and_metadata_too(tmp_path, monkeypatch):
    config = write_small_config(tmp_path, draw_several(tmp_path / "several"))
    keys = ('data.label_separator=";"', "data.columns.metadata={red: number}", *EVAL)
    with monkeypatch.context() as patch:
        patch.setenv("FINETUNE_CACHE_SIZE", "0")
        live, _ = train_into(tmp_path / "live", config, *keys)
    assert train_into(tmp_path / "cold", config, *keys)[0] == live
    warm, said = train_into(tmp_path / "warm", config, *keys)
    assert COMPUTED in said
    assert warm == live


def test_a_second_training_or_search_computes_no_image(images, tmp_path, seen):
    config = write_small_config(tmp_path, images)
    keys = (*EVAL, "stages.frozen.lr=auto", *FAST)
    train_into(tmp_path / "run", config, *keys)
    assert sum(seen) == 36 + 8 + 6 + 6 + 36  # a batch of each size twice; in the end by the best model
    seen.clear()
    train_into(tmp_path / "other", config, *keys, "stages.frozen.epochs=5")
    assert sum(seen) == 36  # by the best model, in the end
    seen.clear()
    result = run_finetune("lr-find", config, "--stage", "frozen", *keys)
    assert result.exit_code == 0, result.output
    assert seen == []
