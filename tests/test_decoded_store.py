"""Blocks of decoded images: read as they were written, or not at all; bounded; shared by processes."""

import os
import pickle
import shutil

import pytest
import torch

from finetune.data.loading.decoded_store import (
    KEY,
    DecodedStore,
    make_block,
    open_block,
)
from finetune.machine.cache import cached_rows


def picture(seed, height=5, width=7, *, last=True):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=generator)
    return pixels.permute(2, 0, 1) if last else pixels.permute(2, 0, 1).contiguous()


def key(number):
    return bytes([number]) * KEY


@pytest.fixture
def store(tmp_path):
    return DecodedStore(tmp_path / "decoded", 10**6)


def write(store, namespace="a", *seeds, height=5):
    images = [picture(seed, height) for seed in seeds]
    return store.write(namespace, make_block([key(seed) for seed in seeds], images), "photos")


def test_images_are_read_as_they_were_written_and_lie_in_memory_in_the_same_order(store):
    images = [picture(0), picture(1, 9, 4, last=False), picture(2, 1, 1), picture(3, 6, 6)[:, 1:4, 2:5]]
    written = store.write("a", make_block([key(n) for n in range(4)], images), "photos")
    (found,) = store.open("a")
    for block in (written, found, pickle.loads(pickle.dumps(found))):
        for number, image in enumerate(images):
            assert torch.equal(block.image(number), image)
            assert block.is_whole(number)
            assert block.key(number) == key(number)
            if number < 2:
                assert block.image(number).stride() == image.stride()
    assert cached_rows(found.path) == ("photos", 4)
    assert store.open("b") == []


def test_a_block_is_sent_to_another_process_by_its_name(store):
    block = write(store, "a", 1, 2, height=900)
    assert len(pickle.dumps(block)) < 500
    sent = pickle.dumps(block)
    block.path.unlink()
    assert pickle.loads(sent) is None
    in_memory = make_block([key(1)], [picture(1)])
    assert torch.equal(pickle.loads(pickle.dumps(in_memory)).image(0), picture(1))


def test_a_changed_byte_is_noticed_in_its_image_alone(store):
    block = write(store, "a", 1, 2)
    content = bytearray(block.path.read_bytes())
    place = content.index(bytes(picture(2).permute(1, 2, 0).numpy().tobytes()))
    content[place] ^= 1
    block.path.write_bytes(content)
    again = open_block(block.path)
    assert (again.is_whole(0), again.is_whole(1)) == (True, False)


@pytest.mark.parametrize("length", [0, 5, 100, -1])
def test_a_file_that_was_cut_short_is_removed(store, length):
    path = write(store, "a", 1).path
    content = path.read_bytes()
    path.write_bytes(content[:length])
    assert open_block(path) is None
    assert not path.exists()


@pytest.mark.parametrize("change", ["keys", "rows", "beyond", "negative", "sums", "dtype", "missing"])
def test_parts_that_do_not_fit_together_are_removed(store, change):
    from safetensors.torch import load_file, save_file

    path = write(store, "a", 1, 2).path
    parts = load_file(path)
    if change == "keys":
        parts["keys"] = parts["keys"][:-1]
    elif change == "rows":
        parts["rows"] = parts["rows"][:, :4].contiguous()
    elif change == "beyond":
        parts["rows"][1, 0] += 1
    elif change == "negative":
        parts["rows"][1, 0] = -1
    elif change == "sums":
        parts["sums"] = parts["sums"][:1].clone()
    elif change == "dtype":
        parts["pixels"] = parts["pixels"].float()
    else:
        del parts["sums"]
    save_file(parts, path)
    assert open_block(path) is None
    assert not path.exists()


def test_what_a_killed_process_leaves_is_never_read(store):
    path = write(store, "a", 1).path
    shutil.copy(path, path.with_name("half.tmp"))
    assert [block.path for block in store.open("a")] == [path]


def test_what_was_not_used_for_longest_goes_first_and_what_is_in_use_stays(tmp_path):
    store = DecodedStore(tmp_path, 10**6)
    old, used, newer = (write(store, name, number) for number, name in enumerate("abc"))
    for number, block in enumerate((old, used, newer)):
        os.utime(block.path, (number, number))
    size = old.path.stat().st_size
    small = DecodedStore(tmp_path, 3 * size + 10)
    small.use(used)
    assert used.path.stat().st_mtime > 10
    os.utime(used.path, (0, 0))  # another process has used the others since
    assert write(small, "d", 4) is not None
    assert [block.path.exists() for block in (old, used, newer)] == [False, True, True]


def test_no_more_is_written_than_the_bound(tmp_path):
    store = DecodedStore(tmp_path, 1000)
    block = write(store, "a", 1)
    store.use(block)
    assert not store.is_full
    assert write(store, "a", 2, height=40) is None
    assert store.is_full
    assert block.path.exists()
    assert write(DecodedStore(tmp_path / "none", 0), "a", 1) is None
    assert not (tmp_path / "none").exists()


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    store = DecodedStore(tmp_path / "file", 10**6)
    assert write(store, "a", 1) is None
    assert store.open("a") == []
    assert not store.is_full
