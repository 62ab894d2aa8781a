"""Images that are decoded once are the same to the last bit, with any number of workers, and stay true."""

import os

import pytest
import torch
from conftest import draw_images, index_images
from PIL import Image

from finetune.data.images import ImageLimits
from finetune.data.loading import decode_once
from finetune.data.loading.dataset import EvalImages, TrainImages, Unreadable
from finetune.data.loading.decode_once import decode_missing, sizes_of
from finetune.data.loading.decoded import DecodedImages, find_decoded
from finetune.data.loading.decoded_store import DecodedStore
from finetune.data.loading.loaders import build_eval_loader, build_train_loader
from finetune.data.loading.sampler import TrainKey
from finetune.data.loading.transforms import eval_transform, train_transform
from finetune.model.preprocessing import Preprocessing
from finetune.progress import Bar

LEVELS = ("none", "light", "standard", "strong", "randaugment", "trivial")
SMALL = Preprocessing(24, 28, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "bilinear")


@pytest.fixture(autouse=True)
def settled(monkeypatch):
    """Trust files that have just been written."""
    monkeypatch.setattr("finetune.data.loading.decoded.SETTLED", 0)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """Two classes of images, one of them a photo that is decoded at half its size, upright."""
    root = draw_images(tmp_path_factory.mktemp("images"), classes=("a", "b"), each=8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.effect_noise((160, 130), 90).convert("RGB").save(root / "a" / "photo.jpg", exif=exif)
    Image.effect_noise((30, 70), 90).save(root / "b" / "grey.png")
    return index_images(root, val=0.25, seed=1)


@pytest.fixture
def store(tmp_path):
    return DecodedStore(tmp_path / "decoded", 10**7)


def train_images(index, level="standard"):
    return TrainImages(index, ImageLimits(), train_transform(level, SMALL))


def decoded_images(images, store, namespace="a", *, fill=True):
    """Return the images of a data set that are decoded, now or before."""
    decoded = DecodedImages(images.index.root, images.samples)
    find_decoded(decoded, store, namespace)
    if fill:
        assert decode_missing(images, decoded, lambda block: store.write(namespace, block, ""), Bar())
    return decoded


def refuse(*_, **__):
    raise AssertionError("it is decoded again")


def items(images):
    return [images[TrainKey(position, position + 5)].image for position in range(len(images))]


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("level", LEVELS)
def test_no_bit_of_a_training_image_depends_on_it(index, store, level, monkeypatch):
    images = train_images(index, level)
    live = items(images)
    images.decoded = decoded_images(images, store)
    monkeypatch.setattr("finetune.data.loading.dataset.load_sample", refuse)
    assert same(live, items(images))
    images.decoded = decoded_images(images, store, fill=False)  # another run
    assert same(live, items(images))


def test_what_is_kept_of_an_image_that_never_changes_is_what_the_network_sees(index, store, monkeypatch):
    images = EvalImages(index, ImageLimits(), eval_transform(SMALL))
    live = list(build_eval_loader(images, batch_size=3))
    images.decoded = decoded_images(images, store)
    assert images.decoded.bytes == len(images) * 3 * 24 * 24
    monkeypatch.setattr("finetune.data.loading.dataset.load_sample", refuse)
    found = list(build_eval_loader(images, batch_size=3))
    for (one, _), (two, _) in zip(live, found, strict=True):
        assert torch.equal(one, two)
        assert one.stride() == two.stride()


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_find_them_too(index, store, in_memory, context, monkeypatch):
    live, images = train_images(index), train_images(index)
    images.decoded = decoded_images(images, store)
    if in_memory:
        images.decoded = DecodedImages(index.root, images.samples)
        assert decode_missing(images, images.decoded, lambda block: block, Bar())
    if context == "fork":
        monkeypatch.setattr("finetune.data.loading.dataset.load_sample", refuse)
    batches = []
    for dataset, workers in ((live, 0), (images, 2)):
        loader = build_train_loader(dataset, batch_size=4, seed=3, workers=workers)
        if workers:
            loader.multiprocessing_context = context
        else:
            monkeypatch.undo()
        loader.sampler.start_epoch(0, 1)
        batches.append([batch[0] for batch in loader])
        if context == "fork":
            monkeypatch.setattr("finetune.data.loading.dataset.load_sample", refuse)
    assert same(*batches)


@pytest.fixture
def own(tmp_path):
    """Return training images of files that a test may change."""
    root = draw_images(tmp_path / "own", classes=("a", "b"), each=5)
    return train_images(index_images(root, val=0.2, seed=1), "none")


def test_a_file_that_changes_later_is_read_as_it_is_then(own, store):
    own.decoded = decoded_images(own, store)
    before = items(own)
    path = own.index.root / own.samples[2].name
    status = path.stat()
    Image.new("RGB", (40, 48), "red").save(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = items(own)
    assert [n for n in range(len(own)) if not torch.equal(before[n], after[n])] == [2]
    assert own.decoded.get(2) is None
    again = decoded_images(own, store, fill=False)
    assert again.missing() == [2]
    path.unlink()
    assert isinstance(own[TrainKey(2, 0)], Unreadable)


def test_a_file_that_changed_a_moment_ago_is_not_kept(own, store, monkeypatch):
    monkeypatch.setattr("finetune.data.loading.decoded.SETTLED", 10**12)
    decoded = decoded_images(own, store)
    assert (decoded.count, decoded.missing()) == (0, [])
    assert decoded.get(0) is None


def test_a_file_that_changes_while_it_is_decoded_is_not_kept(own, store, monkeypatch):
    load = decode_once._load

    def load_and_touch(images, position):
        loaded = load(images, position)
        if position == 3:
            os.utime(images.index.root / images.samples[position].name)
        return loaded

    monkeypatch.setattr(decode_once, "_load", load_and_touch)
    assert decoded_images(own, store).missing() == [3]


def test_a_file_that_cannot_be_read_is_left_to_whoever_asks_for_it(own, store):
    path = own.index.root / own.samples[1].name
    path.write_bytes(b"no image")
    own.decoded = decoded_images(own, store)
    assert own.decoded.missing() == [1]
    assert isinstance(own[TrainKey(1, 0)], Unreadable)
    assert len(sizes_of(own, [0, 1, 2])) == 2


def test_a_damaged_image_is_decoded_again(own, store):
    first = decoded_images(own, store)
    live = items(own)
    (path,) = store.folder.rglob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 255
    path.write_bytes(content)
    own.decoded = decoded_images(own, store, fill=False)
    assert same(live, items(own))
    assert own.decoded.count == first.count - 1
    assert not path.exists()
    assert same(live, items(own))  # mapped is mapped


def test_what_was_decoded_before_an_interrupt_is_kept(own, store, monkeypatch):
    monkeypatch.setattr(decode_once, "_BLOCK", 3 * 24 * 24)  # two images

    class Interrupted(Bar):
        def advance_by(self, more):
            super().advance_by(more)
            if self._advanced == 6:
                raise KeyboardInterrupt

    decoded = DecodedImages(own.index.root, own.samples)
    with pytest.raises(KeyboardInterrupt):
        decode_missing(own, decoded, lambda block: store.write("a", block, ""), Interrupted())
    assert decoded.count == 5
    assert decoded_images(own, store, fill=False).count == 5
    assert decoded_images(own, store).count == len(own)


def test_where_there_is_no_more_room_the_rest_is_decoded_in_each_pass(own, store, monkeypatch):
    monkeypatch.setattr(decode_once, "_BLOCK", 3 * 24 * 24)
    live = items(own)
    blocks = []

    def keep(block):
        blocks.append(block)
        return store.write("a", block, "") if len(blocks) < 3 else None

    own.decoded = DecodedImages(own.index.root, own.samples)
    assert not decode_missing(own, own.decoded, keep, Bar())
    assert len(blocks) == 3
    assert own.decoded.count == 4
    assert same(live, items(own))


def test_two_that_decode_the_same_images_leave_each_of_them_usable(own, store):
    one, two = (DecodedImages(own.index.root, own.samples) for _ in "ab")
    for decoded in (one, two):
        assert decode_missing(own, decoded, lambda block: store.write("a", block, ""), Bar())
    assert one.count == two.count == decoded_images(own, store, fill=False).count == len(own)
    assert len(store.open("a")) == 1  # the next one has removed what was there twice
