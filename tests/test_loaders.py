import os
import shutil
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import index_images
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import v2

from finetune.data.images import ImageLimits
from finetune.data.loading import sampler as sampler_module
from finetune.data.loading.dataset import EvalImages, TrainImages
from finetune.data.loading.loaders import build_eval_loader, build_train_loader, fit_batch_size
from finetune.data.loading.sampler import EpochSampler
from finetune.data.loading.transforms import Transform, eval_transform, train_transform
from finetune.data.loading.workers import choose_workers, worker_failure, workers_with_room
from finetune.errors import DataError, ResourceError
from finetune.model.preprocessing import Preprocessing
from finetune.seed import derive

LIMITS = ImageLimits()
SMALL = Preprocessing(24, 28, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "bilinear")


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """Two classes of 12 noise images, of which 9 each train."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (root / name).mkdir()
        for i in range(12):
            Image.fromarray(rng.integers(0, 255, (30, 40, 3), np.uint8)).save(root / name / f"{i:02d}.png")
    return index_images(root, val=0.25, seed=1)


def train_loader(index, workers=0, *, augment="strong", batch_size=4, seed=7):
    transform = train_transform(augment, SMALL)
    images = TrainImages(index, LIMITS, transform)
    return build_train_loader(images, batch_size=batch_size, seed=seed, workers=workers)


def one_epoch(loader, stage=0, epoch=0, first_batch=0):
    loader.sampler.start_epoch(stage, epoch, first_batch)
    return list(loader)


def same(one, two):
    return len(one) == len(two) and all(
        torch.equal(a, b)
        for left, right in zip(one, two, strict=True)
        for a, b in zip(left, right, strict=True)
    )


def test_batches_are_bytes_and_class_numbers(index):
    batches = one_epoch(train_loader(index))
    assert len(batches) == len(train_loader(index)) == 18 // 4
    for images, targets in batches:
        assert (images.dtype, images.shape) == (torch.uint8, (4, 3, 24, 24))
        assert (targets.dtype, targets.shape) == (torch.int64, (4,))


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_no_bit(index, workers):
    alone, with_workers = train_loader(index), train_loader(index, workers)
    for epoch in (0, 1, 0):
        assert same(one_epoch(alone, 1, epoch), one_epoch(with_workers, 1, epoch))


class CountThreads(torch.nn.Module):
    """Put the number of threads that a transform computes with into its pixels."""

    def forward(self, image):
        return torch.full_like(image, torch.get_num_threads())


def test_images_are_transformed_by_one_thread_as_in_a_worker(index):
    threads = torch.get_num_threads()
    transform = Transform(v2.Compose([v2.PILToTensor(), CountThreads()]), shrink_to=24)
    try:
        torch.set_num_threads(3)
        batches = one_epoch(build_train_loader(TrainImages(index, LIMITS, transform), batch_size=9, seed=1))
        assert all((images == 1).all() for images, _ in batches)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_epochs_stages_and_seeds_differ(index):
    loader = train_loader(index)
    first = one_epoch(loader, 0, 0)
    assert same(first, one_epoch(loader, 0, 0))
    assert not same(first, one_epoch(loader, 0, 1))
    assert not same(first, one_epoch(loader, 1, 0))
    assert not same(first, one_epoch(train_loader(index, seed=8), 0, 0))


@pytest.mark.parametrize("workers", [0, 2])
def test_skipped_batches_leave_the_later_ones_as_they_are(index, workers):
    whole = one_epoch(train_loader(index), 0, 3)
    assert same(whole[2:], one_epoch(train_loader(index, workers), 0, 3, first_batch=2))
    assert len(train_loader(index)) == 4


def test_an_epoch_holds_every_image_once():
    sampler = EpochSampler(18, 4, seed=1)
    sampler.start_epoch(0, 0)
    keys = list(sampler)
    assert sorted(key.position for key in keys) == list(range(18))
    assert len({key.seed for key in keys}) == 18
    assert sampler.positions(0, 0) == [key.position for key in keys]


def test_the_augmentation_of_an_image_is_a_function_of_its_place(monkeypatch):
    """Whichever blocks the keys are made in; an image that comes again counts how often it has come."""
    monkeypatch.setattr(sampler_module, "_TOGETHER", 3)
    order = [4, 1, 4, 0, 2, 4, 1]
    sampler = EpochSampler(5, 2, seed=7, order=lambda seed: list(order))
    again = [(), (), (1,), (), (), (2,), (1,)]
    expected = [derive(7, "augment", 2, 3, place, *more) for place, more in zip(order, again, strict=True)]
    for first_batch in range(4):
        sampler.start_epoch(2, 3, first_batch)
        keys = list(sampler)
        assert [key.seed for key in keys] == expected[2 * first_batch :]
        assert [key.position for key in keys] == order[2 * first_batch :]


def test_a_pass_without_start_epoch_is_refused(index):
    loader = train_loader(index)
    with pytest.raises(RuntimeError, match="start_epoch"):
        next(iter(loader))
    one_epoch(loader)
    with pytest.raises(RuntimeError, match="start_epoch"):
        next(iter(loader))


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_draws_nothing_from_the_global_generators(index, workers):
    loader = train_loader(index, workers)
    evaluation = build_eval_loader(EvalImages(index, LIMITS, eval_transform(SMALL)), workers=workers)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one_epoch(loader)
    list(evaluation)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_epoch_that_is_left_early_does_not_spoil_the_next(index):
    expected = one_epoch(train_loader(index), 0, 1)
    loader = train_loader(index, workers=1)
    loader.sampler.start_epoch(0, 0)
    for _ in loader:
        break
    assert same(expected, one_epoch(loader, 0, 1))


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_takes_every_image_in_order(index, workers):
    transform = eval_transform(SMALL)
    loader = build_eval_loader(
        EvalImages(index, LIMITS, transform, split="train"), batch_size=4, workers=workers
    )
    batches = list(loader)
    assert [len(targets) for _, targets in batches] == [4, 4, 4, 4, 2]
    samples = index.of_split("train")
    assert torch.cat([targets for _, targets in batches]).tolist() == [sample.target for sample in samples]
    with Image.open(index.root / samples[5].name) as image:
        assert torch.equal(batches[1][0][1], transform(image.convert("RGB")))
    assert same(batches, list(loader))


def test_builtin_digits_are_loaded_like_files():
    digits = index_images("builtin:digits", seed=1)
    loader = train_loader(digits, augment="light", batch_size=64)
    assert len(loader) == digits.count("train") // 64
    loader.sampler.start_epoch(0, 0)
    images, targets = next(iter(loader))
    assert images.shape == (64, 3, 24, 24)
    assert set(targets.tolist()) <= set(range(10))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("content", [None, b"<html>"])
def test_an_image_that_changed_since_the_scan_is_named(tmp_path, workers, content):
    for name in ("a/1", "a/2", "b/1", "b/2"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (9, 9)).save(tmp_path / f"{name}.png")
    index = index_images(tmp_path, val=0.5, seed=1)
    changed = tmp_path / index.of_split("train")[1].name
    if content is None:
        changed.unlink()
        reason = "no such file"
    else:
        changed.write_bytes(content)
        reason = "looks like HTML"
    with pytest.raises(DataError, match=f"^{changed}: {reason}.*; it has changed since the scan.$"):
        one_epoch(train_loader(index, workers, batch_size=2))


def test_a_killed_worker_is_a_resource_error(index):
    loader = train_loader(index, workers=1, batch_size=2)
    loader.sampler.start_epoch(0, 0)
    # torch raises it wherever the main process is at that moment, in the loader or not.
    with pytest.raises((ResourceError, RuntimeError)) as caught:  # noqa: PT012
        for _ in loader:
            os.kill(loader._iterator._workers[0].pid, signal.SIGKILL)
            time.sleep(0.5)
    error = caught.value
    failure = error if isinstance(error, ResourceError) else worker_failure(error)
    assert failure is not None
    assert "a data worker was killed, most likely for lack of memory; set data.workers" in str(failure)
    assert failure.exit_code == 6


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("DataLoader timed out after 300 seconds", "no data worker answered for 300 s"),
        ("DataLoader worker (pid 12) is killed by signal: Killed. ", "for lack of memory"),
        ("DataLoader worker (pid(s) 12, 13) exited unexpectedly", "for lack of memory"),
        (
            "DataLoader worker (pid 12) is killed by signal: Bus error. It is possible that dataloader's "
            "workers are out of shared memory. Please try to raise your shared memory limit.",
            "for lack of shared memory",
        ),
    ],
)
def test_complaints_about_workers_are_translated(text, expected):
    failure = worker_failure(RuntimeError(text))
    assert expected in str(failure)
    assert worker_failure(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None


def test_workers_leave_signals_to_the_main_process(index):
    expected = one_epoch(train_loader(index), 0, 0)
    loader = train_loader(index, workers=1)
    loader.sampler.start_epoch(0, 0)
    batches = []
    for batch in loader:
        batches.append(batch)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            os.kill(loader._iterator._workers[0].pid, number)
    assert same(batches, expected)


@pytest.mark.slow
def test_workers_can_be_spawned_as_on_other_systems(index):
    expected = one_epoch(train_loader(index), 0, 0)
    for method in ("spawn", "forkserver"):
        loader = train_loader(index, workers=1)
        loader.multiprocessing_context = method
        assert same(one_epoch(loader, 0, 0), expected)


def test_a_batch_never_exceeds_the_training_images(index):
    assert fit_batch_size(100, 64) == 64
    assert fit_batch_size(5, 64) == 5
    with pytest.raises(DataError, match="need at least 2 training images; there is 1"):
        fit_batch_size(1, 64)
    with pytest.raises(DataError, match="18 training images are fewer than one batch of 19"):
        train_loader(index, batch_size=19)
    assert len(train_loader(index, batch_size=18)) == 1


@pytest.mark.parametrize(
    ("setting", "n_images", "device", "cores", "expected"),
    [
        (3, 10, "cpu", 1, 3),
        ("auto", 100, "cuda", 16, 0),
        ("auto", 10_000, "cuda", 16, 8),
        ("auto", 10_000, "cuda", 4, 3),
        ("auto", 10_000, "cuda", 2, 1),
        ("auto", 10_000, "cpu", 2, 0),
        ("auto", 10_000, "cpu", 1, 0),
    ],
)
def test_workers_are_chosen_by_images_device_and_cores(setting, n_images, device, cores, expected):
    assert choose_workers(setting, n_images, device_type=device, cores=cores) == expected


@pytest.mark.parametrize(
    ("free", "expected"), [(64 << 20, 0), (128 << 20, 1), (600 << 20, 7), (10 << 30, 8), (0, 0)]
)
def test_no_more_workers_than_shared_memory_has_room_for(free, expected, monkeypatch):
    batch = 256 * 3 * 224 * 224
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    assert workers_with_room(8, batch) == expected


def test_a_system_without_such_a_folder_sets_no_limit(tmp_path):
    assert workers_with_room(8, 1 << 40, shared_memory=tmp_path / "none") == 8


class Copies(TorchDispatchMode):
    """Notes whether each copy to another device is waited for."""

    def __init__(self):
        super().__init__()
        self.waits = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and "device" in kwargs:
            self.waits.append(not kwargs.get("non_blocking"))
        return func(*args, **kwargs)


def test_batches_go_to_the_device_without_a_wait(index):
    """Fastai would copy what is elsewhere, and wait for each batch."""
    meta = torch.device("meta")
    images = EvalImages(index, LIMITS, eval_transform(SMALL), split="val")
    with Copies() as copies:
        batches = list(build_eval_loader(images, batch_size=4, device=meta))
    assert {part.device for batch in batches for part in batch} == {meta}
    assert copies.waits == [False] * 2 * len(batches)
    assert build_eval_loader(images, device=torch.device("cuda", 0)).pin_memory
    assert not build_eval_loader(images).pin_memory
