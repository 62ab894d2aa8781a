import csv
import json

import numpy as np
import pytest
import torch
from conftest import index_images, run_finetune, write_small_config
from PIL import Image

from finetune.choices import ON_DEVICE
from finetune.commands.train.resume import check_config
from finetune.config.load import load_config
from finetune.data.images import ImageLimits
from finetune.data.loading.dataset import TrainImages
from finetune.data.loading.decode_once import decode_missing
from finetune.data.loading.decoded import DecodedImages
from finetune.data.loading.draws import LARGEST, Draw, device_transform, pack
from finetune.data.loading.loaders import ChosenImages, build_train_loader
from finetune.data.loading.transforms import train_transform
from finetune.errors import ConfigError
from finetune.experiment import capacity
from finetune.model.preprocessing import Preprocessing
from finetune.progress import Bar

LIMITS = ImageLimits()
SMALL = Preprocessing(24, 28, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "bilinear")
BUILD = {"cpu": train_transform, "device": device_transform}


def photo(width, height, seed):
    """Draw something with coarse and fine structure."""
    noise = Image.fromarray(np.random.default_rng(seed).integers(0, 255, (9, 12, 3), np.uint8))
    pixels = np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    pixels += np.random.default_rng(seed + 1).integers(-20, 20, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """Two classes of 12 images, of which 9 each train: PNG and JPEG, of many sizes."""
    root = tmp_path_factory.mktemp("images")
    sizes = [(40, 30), (90, 120), (500, 375), (31, 47), (1, 1), (3, 200), (24, 24), (640, 200)]
    for number, name in enumerate("ab"):
        (root / name).mkdir()
        for i in range(12):
            ending = ("png", "jpg")[i % 2]
            photo(*sizes[(i + number) % len(sizes)], seed=50 * number + i).save(
                root / name / f"{i:02d}.{ending}"
            )
    return index_images(root, val=0.25, seed=1)


def train_loader(index, where, level="standard", *, workers=0, batch_size=5, preprocessing=SMALL):
    images = TrainImages(index, LIMITS, BUILD[where](level, preprocessing))
    return build_train_loader(images, batch_size=batch_size, seed=7, workers=workers)


def one_epoch(loader, epoch=0, first_batch=0):
    loader.sampler.start_epoch(0, epoch, first_batch)
    batches = list(loader)
    assert all(images.dtype == torch.uint8 and images.shape[1:] == (3, 24, 24) for images, _ in batches)
    return torch.cat([images for images, _ in batches]), torch.cat([targets for _, targets in batches])


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("level", ON_DEVICE)
def test_a_level_differs_by_one_grey_level_at_the_most(index, level, interpolation):
    preprocessing = Preprocessing(24, 28, (0.5,) * 3, (0.25,) * 3, interpolation)
    for epoch in range(3):
        (cpu, targets), (ours, same_targets) = (
            one_epoch(train_loader(index, where, level, preprocessing=preprocessing), epoch)
            for where in BUILD
        )
        assert torch.equal(targets, same_targets)
        assert int((cpu.int() - ours.int()).abs().max()) <= 1
    if level != "none":
        assert not torch.equal(one_epoch(train_loader(index, "device", level), 1)[0], ours)


@pytest.mark.parametrize("level", ["light", "standard"])
def test_workers_batches_and_where_a_pass_begins_change_no_bit(index, level):
    images, targets = one_epoch(train_loader(index, "device", level, batch_size=6))
    for workers, batch_size in ((2, 6), (1, 3), (0, 9), (0, 2), (0, 18)):
        other = one_epoch(train_loader(index, "device", level, workers=workers, batch_size=batch_size))
        assert torch.equal(other[0], images)
        assert torch.equal(other[1], targets)
    resumed, _ = one_epoch(train_loader(index, "device", level, batch_size=6), first_batch=2)
    assert torch.equal(resumed, images[12:])


def test_a_batch_of_one_image_is_as_in_a_batch_of_many(index):
    loader = train_loader(index, "device", batch_size=18)
    images, _ = one_epoch(loader)
    keys = loader.sampler.keys(0, 0)
    alone = ChosenImages(loader.dataset, batch_size=1)(keys)
    assert torch.equal(torch.cat([image for image, _ in alone]), images)


def test_decoded_images_are_varied_to_the_same_bits(index):
    loader, decoded = train_loader(index, "device"), train_loader(index, "device")
    expected = one_epoch(loader)[0]
    images = decoded.dataset
    images.decoded = DecodedImages(index.root, images.samples)
    stamps = images.decoded._stamps  # files this young are not kept
    for position in range(len(images)):
        stamps[position] = images.decoded._look(position)
    assert decode_missing(images, images.decoded, lambda block: block, Bar())
    assert images.decoded.count == len(images)
    assert torch.equal(one_epoch(decoded)[0], expected)


def draw_all(images, preprocessing=SMALL):
    transform = device_transform("standard", preprocessing)
    draws = []
    for seed, image in enumerate(images):
        torch.manual_seed(seed)
        draws.append(transform(image))
    return transform, draws


def test_a_batch_of_large_images_takes_memory_for_what_the_network_sees_of_them():
    """They are resized where they are loaded, to the pixels that the device would have made."""
    images = [photo(900, 700, 0), photo(2000, 30, 1), photo(30, 2000, 2)]
    transform, draws = draw_all(images)
    assert all(draw.pixels[0].numel() <= LARGEST * 24**2 for draw in draws)
    ours = transform.halves.finish(pack(draws))
    for seed, (image, row) in enumerate(zip(images, ours, strict=True)):
        torch.manual_seed(seed)
        assert int((train_transform("standard", SMALL)(image).int() - row.int()).abs().max()) <= 1


def test_images_that_fill_a_group_badly_get_groups_of_their_own():
    """A tall and a wide image would otherwise be padded to the square of their long sides."""
    tall, wide = torch.zeros(3, 3000, 9, dtype=torch.uint8), torch.zeros(3, 9, 3000, dtype=torch.uint8)
    small = torch.zeros(3, 20, 30, dtype=torch.uint8)
    batch = pack([Draw(pixels, [0.0]) for pixels in (tall, wide, small, tall)])
    assert [tuple(group.shape) for group in batch.groups] == [(2, 3, 20, 3000), (2, 3, 3000, 9)]
    stand = torch.cat([group.new_full((len(group),), number) for number, group in enumerate(batch.groups)])
    assert stand[batch.order].tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize("level", ["strong", "randaugment", "trivial"])
def test_levels_that_a_device_does_otherwise_are_refused(tmp_path, level):
    config = write_small_config(tmp_path, tmp_path)
    with pytest.raises(ConfigError, match=f"does not do augment: {level} .*write cpu, or one of none, light"):
        load_config(config, ["data.augment_on=device", f"data.augment={level}"])


def test_what_cannot_resize_so_is_refused(images, tmp_path):
    config = load_config(write_small_config(tmp_path, images), ["data.augment_on=device"])

    class Model:
        preprocessing = Preprocessing(24, 28, (0.5,) * 3, (0.25,) * 3, "nearest")

    with pytest.raises(ConfigError, match=r"nearest.*\nWrite data\.augment_on: cpu"):
        capacity.check_augmentation(config, Model, torch.device("cpu"))
    with pytest.raises(ConfigError, match="float64"):
        capacity.check_augmentation(config, Model, torch.device("mps"))


def test_the_key_counts_as_one_that_changes_bits(images, tmp_path):
    config = write_small_config(tmp_path, images)
    before, now = (load_config(config, [f"data.augment_on={where}"]) for where in BUILD)
    assert check_config(before, now) == ["data.augment_on: cpu, now device"]


def history(run):
    with (run / "history.csv").open() as file:
        return [float(row["train_loss"]) for row in csv.DictReader(file)]


def test_a_training_with_cached_views_and_a_found_rate_is_the_same(images, tmp_path):
    config = write_small_config(tmp_path, images)
    keys = ("data.augment=standard", "stages.0.views=1", "stages.0.epochs=2", "stages.0.lr=auto")
    more = ("lr_finder.steps=20", "lr_finder.race_steps=4")
    for where in BUILD:
        result = run_finetune(
            "train", config, "--run-dir", tmp_path / where, f"data.augment_on={where}", *keys, *more
        )
        assert result.exit_code == 0, result.output
    assert history(tmp_path / "device") == pytest.approx(history(tmp_path / "cpu"), rel=0.02)
    accuracies = [json.loads((tmp_path / where / "report.json").read_text()) for where in BUILD]
    assert accuracies[0]["val"]["accuracy"] == pytest.approx(accuracies[1]["val"]["accuracy"], abs=0.15)
