"""Files of other programs are refused with a command that makes of them what is read: each is run here."""

import gzip
import re
import struct
import subprocess
import sys

import numpy as np
import pytest
import scipy.io
import torchvision.datasets
from conftest import some_quick
from PIL import Image
from test_data import draw

from finetune.data.images import ImageLimits, read_image
from finetune.data.images.decode import ImageError
from finetune.data.indexing.build import list_images
from finetune.errors import DataError

PIXELS = np.random.default_rng(3).integers(0, 256, (8, 12, 12))
"""pictures whose classes are 0 and 1 in turn"""


def idx(root, ending=""):
    write = gzip.compress if ending else bytes
    for name in ("train", "t10k"):
        head = struct.pack(">IIII", 2051, 8, 12, 12)
        (root / f"{name}-images-idx3-ubyte{ending}").write_bytes(write(head + PIXELS.astype("u1").tobytes()))
        labels = struct.pack(">II", 2049, 8) + bytes([0, 1] * 4)
        (root / f"{name}-labels-idx1-ubyte{ending}").write_bytes(write(labels))
    return root


def idx_compressed(root):
    return idx(root, ".gz") / "train-images-idx3-ubyte.gz"


def cifar_binary(root):
    row = bytes(np.random.default_rng(4).integers(0, 256, 3072, dtype="u1"))
    for name in ("data_batch_1", "data_batch_2", "test_batch"):
        (root / f"{name}.bin").write_bytes(b"".join(bytes([n % 2]) + row for n in range(4)))
    (root / "batches.meta.txt").write_text("cat\ndog\n")
    return root


def pixel_columns(root, header=True):
    head = [",".join(["label", *(f"pixel{n}" for n in range(144))])] if header else []
    rows = [",".join(map(str, [n % 2, *pixels.ravel()])) for n, pixels in enumerate(PIXELS)]
    (root / "train.csv").write_text("\n".join([*head, *rows, ""]))
    (root / "test.csv").write_text("\n".join(row[2:] for row in rows))
    return root if header else root / "train.csv"


def pixel_cells(root):
    usage = ["Training"] * 4 + ["PublicTest"] * 2 + ["PrivateTest"] * 2
    rows = [f"{n % 2},{' '.join(map(str, p.ravel()))},{usage[n]}" for n, p in enumerate(PIXELS)]
    (root / "fer2013.csv").write_text("\n".join(["emotion,pixels,Usage", *rows, ""]))
    return root / "fer2013.csv"


def flowers(root):
    draw(root, *(f"jpg/image_{n:05}.jpg" for n in range(1, 9)))
    scipy.io.savemat(root / "imagelabels.mat", {"labels": np.array([1, 2] * 4)})
    splits = {"trnid": np.arange(1, 5), "valid": np.array([5, 6]), "tstid": np.array([7, 8])}
    scipy.io.savemat(root / "setid.mat", splits)
    return root


# What is written, and how many images train, validate and test when the command has run.
WRITTEN = {
    "IDX": (idx, ("0", "1"), (8, 0, 8)),
    "IDX in gzip": (idx_compressed, ("0", "1"), (8, 0, 8)),
    "CIFAR, binary": (cifar_binary, ("cat", "dog"), (8, 0, 4)),
    "pixel columns": (pixel_columns, ("0", "1"), (8, 0, 0)),
    "pixel columns without names": (lambda root: pixel_columns(root, header=False), ("0", "1"), (8, 0, 0)),
    "pixels in a cell": (pixel_cells, ("0", "1"), (4, 2, 2)),
    "Oxford flowers": (flowers, ("1", "2"), (4, 2, 2)),
}


def refused(path):
    with pytest.raises(DataError) as refusal:
        list_images(path)
    return str(refusal.value)


@pytest.mark.parametrize("name", some_quick(WRITTEN, "IDX", "pixels in a cell"))
def test_the_command_that_a_refusal_names_makes_data_of_it(name, tmp_path):
    write, class_names, numbers = WRITTEN[name]
    said = refused(write(tmp_path))
    (command,) = re.findall(r'python -c ".*', said)
    made = subprocess.run(
        command.replace("python", sys.executable, 1),
        shell=True,
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    assert made.stderr == b""
    index = list_images(tmp_path / "labels.csv" if name == "Oxford flowers" else tmp_path / "png")
    assert index.class_names == class_names
    assert tuple(index.count(split) for split in ("train", "val", "test")) == numbers
    if name != "Oxford flowers":
        assert f"then data.path: {tmp_path}/png" in said
    if name in ("IDX", "pixel columns"):
        first = next(tmp_path.rglob("train/0/0.png" if name == "IDX" else "0/1.png"))
        assert np.array_equal(np.array(Image.open(first)), PIXELS[0])


def test_cifar_is_left_to_torchvision(tmp_path):
    for name in ("data_batch_1", "test_batch", "batches.meta"):
        (tmp_path / name).write_bytes(b"\x80\x02}")
    said = refused(tmp_path)
    assert "holds Python objects of CIFAR, which might run code and are not read" in said
    assert refused(tmp_path / "data_batch_1").endswith(said.splitlines()[-1])
    (code,) = re.findall(r'python -c "(.*)"', said)
    assert "from torchvision.datasets import CIFAR10 as D;" in code
    assert torchvision.datasets.CIFAR10.base_folder == "cifar-10-batches-py"  # so the folder above is meant

    class Pictures(list):
        classes = ("cat", "dog")

        def __init__(self, root, train):
            super().__init__((Image.new("RGB", (4, 4)), n % 2) for n in range(4 if train else 2))

    stubbed = code.replace("from torchvision.datasets import CIFAR10 as D;", "").replace("'png'", "root")
    exec(stubbed, {"D": Pictures, "root": str(tmp_path / "png")})
    index = list_images(tmp_path / "png")
    assert (index.class_names, index.count("train"), index.count("test")) == (("cat", "dog"), 4, 2)


def test_dicom_is_named_wherever_it_is_met(tmp_path):
    for n in range(4):
        path = tmp_path / "images" / f"id{n}.dcm"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 40)
    (tmp_path / "named.csv").write_text(
        "image,label\n" + "".join(f"images/id{n}.dcm,{n % 2}\n" for n in range(4))
    )
    (tmp_path / "ids.csv").write_text("patientId,Target\n" + "".join(f"id{n},{n % 2}\n" for n in range(4)))
    for path in ("", "images", "named.csv", "ids.csv"):
        said = refused(tmp_path / path)
        assert "DICOM file" in said
        (code,) = re.findall(r'pip install pydicom && python -c "(.*?)"', said)
        compile(code, "command", "exec")
    assert "write .png for .dcm in the table" in refused(tmp_path / "named.csv")
    disguised = (tmp_path / "images" / "id0.dcm").rename(tmp_path / "a.png")
    with pytest.raises(ImageError, match="looks like DICOM, 172 bytes"):
        read_image(disguised, ImageLimits())


def test_numbers_beside_names_of_images_are_no_pixels(tmp_path):
    draw(tmp_path, *(f"{n}.png" for n in range(4)))
    facts = ",".join(f"f{n}" for n in range(81))
    rows = [",".join([f"{n}.png", str(n % 2), *(["7"] * 81)]) for n in range(4)]
    (tmp_path / "a.csv").write_text("\n".join([f"image,label,{facts}", *rows]))
    assert list_images(tmp_path / "a.csv").class_names == ("0", "1")
