"""What is held of each of very many images: counted at two sizes, so that no test waits for a million."""

import tracemalloc

import pytest
from PIL import Image

from finetune.data.images import ImageLimits
from finetune.data.indexing.build import list_images, split_images
from finetune.data.quality.scan import check_images
from finetune.machine.collection import no_collection

FEW, MANY = 512, 2048  # in the same ratio to the powers of two by which dictionaries grow
MOST_BYTES = 1000


@pytest.fixture(scope="module")
def sizes(tmp_path_factory):
    """Return two data sets of tiny images, as folders and as tables."""
    root = tmp_path_factory.mktemp("scale")
    Image.new("RGB", (9, 9)).save(root / "one.png")
    content = (root / "one.png").read_bytes()
    for number in (FEW, MANY):
        for name in map(name_of, range(number)):
            path = root / str(number) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        rows = (f"{number}/{name_of(n)},class {n % 4}\n" for n in range(number))
        (root / f"{number}.csv").write_text("image,label\n" + "".join(rows))
    return root


def name_of(number):
    return f"class_{number % 4}/{number:07}.png"


def peak(path):
    """Return the most bytes that Python holds while a data set is listed, split and looked at."""
    tracemalloc.start()
    with no_collection():
        index = split_images(list_images(path), path, val=0.2, seed=0)
        check_images(index, ImageLimits())
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


@pytest.mark.parametrize("ending", ["", ".csv"], ids=["folders", "table"])
def test_an_image_takes_few_bytes_until_all_are_known_to_be_good(sizes, tmp_path, monkeypatch, ending):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    few, many = sizes / f"{FEW}{ending}", sizes / f"{MANY}{ending}"
    peak(few)  # imports what it needs
    grown = (peak(many) - peak(few)) / (MANY - FEW)
    assert grown < MOST_BYTES
