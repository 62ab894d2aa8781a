import atexit
import gc
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _pytest.mark.structures import ParameterSet
from hypothesis import settings
from PIL import Image
from typer.testing import CliRunner, Result

from finetune.choices import CaseVariants
from finetune.cli import load_app
from finetune.data.index import ImageIndex
from finetune.data.indexing.build import list_images, split_images
from finetune.data.split import Validation
from finetune.data.table import USUAL_COLUMNS, Columns
from finetune.runs.digests import write_covered

ROOT = Path(__file__).parents[1]

# What a terminal, a shell or a CI server sets, and rich, typer, Python or the program would heed.
_OF_THE_CALLER = (
    "CI", "COLUMNS", "FORCE_COLOR", "GITHUB_ACTIONS", "LINES", "NO_COLOR", "PY_COLORS", "PYTHONWARNINGS",
    "TERM_PROGRAM", "TORCH_HOME", "TTY_COMPATIBLE", "TTY_INTERACTIVE",
)  # fmt: skip


# What the caller lets torch see of its GPUs; None for all of them.
_GPUS = os.environ.get("CUDA_VISIBLE_DEVICES")


def pytest_configure(config: pytest.Config) -> None:
    """Give the tests of a GPU back what all others must not see."""
    if config.option.markexpr == "gpu":
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        if _GPUS is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = _GPUS


def _leave_the_machine_outside() -> None:
    """Give this process, and those that tests start, an environment of their own.

    It runs before any test module is imported: matplotlib and torch look at some of these only once.
    """
    for name in _OF_THE_CALLER:
        os.environ.pop(name, None)
    # Not even a home that cannot be written, or one with a matplotlibrc, may change a result.
    home = Path(tempfile.mkdtemp(prefix="finetune-tests-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    os.environ |= {
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "FINETUNE_CACHE_SIZE": "0",  # no test may find what another has computed
        "MPLCONFIGDIR": str(home / "matplotlib"),
        "TERM": "dumb",
        "CUDA_VISIBLE_DEVICES": "",  # the same tests on every machine, and not two at once on one GPU
        # Test processes share the cores; threads waiting for each other would take most of the time.
        "OMP_NUM_THREADS": "1",
        # A process that a test starts imports the package under test, from whichever folder it starts in.
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    torch.set_num_threads(1)


_leave_the_machine_outside()
settings.register_profile("of any speed", deadline=None)  # a busy machine is no failure
settings.load_profile("of any speed")


def pytest_collection_finish() -> None:
    """Look for garbage less often, and not among the modules: millions of objects that live to the end."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


def some_quick(values: Iterable[object], *quick: object) -> list[object]:
    """Return the values that a test is tried with; with all but those of `quick` it is slow."""

    def slow(value: object) -> ParameterSet:
        return pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow)

    return [value if value in quick else slow(value) for value in values]


class NetworkUsedError(OSError):
    """A test tried to reach another machine."""


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every network connection raise; sockets between processes of this machine still work."""
    connect = socket.socket.connect

    def refuse_connect(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            raise NetworkUsedError(f"a test connects to {address}")
        connect(self, address)

    def refuse_lookup(host: object, *_: object, **__: object) -> None:
        raise NetworkUsedError(f"a test looks up {host}")

    monkeypatch.setattr(socket.socket, "connect", refuse_connect)
    monkeypatch.setattr(socket, "getaddrinfo", refuse_lookup)


@pytest.fixture(autouse=True, scope="session")
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Leave out, in this process, what keeps files through a loss of power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start every test in its own empty folder, where no leftover can change its result."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait hardly at all for another process to finish a file that is damaged here."""
    monkeypatch.setattr("finetune.runs.digests.WAIT", 0.001)
    monkeypatch.setattr("finetune.runs.directory.WAIT", 0.001)


@pytest.fixture
def hub_folder(tmp_path: Path) -> Iterator[Path]:
    """Point torch.hub's cache at an empty folder, and give the folder of the weights in it."""
    before = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path / "hub")
    yield tmp_path / "hub" / "checkpoints"
    torch.hub.set_dir(before)


def draw_images(root: Path, *, classes: tuple[str, ...] = ("cat", "dog", "owl"), each: int = 12) -> Path:
    """Draw a data set whose classes differ in colour, so that a small model learns it in seconds."""
    generator = np.random.default_rng(0)
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(each):
            pixels = generator.integers(0, 90, (40, 48, 3), dtype=np.uint8)
            pixels[:, :, number % 3] += 120
            Image.fromarray(pixels).save(root / name / f"{name}{i:02}.png")
    return root


SMALL_CONFIG = """\
precision: float32
data: {{path: "{path}", image_size: 32, batch_size: 8, augment: light, workers: 0}}
model: {{arch: shufflenet_v2_x0_5, weights: "builtin:glyphs", head: {{hidden: [16]}}}}
stages:
  - {{name: frozen, train: head, epochs: 1, lr: 1e-2}}
  - {{name: unfrozen, train: all, epochs: 2, lr: "slice(1e-4, 1e-2)"}}
"""


def index_images(
    path: str | Path,
    *,
    val: Validation = "auto",
    seed: int,
    images_per_class: int | None = None,
    case_variants: CaseVariants = "stop",
    columns: Columns = USUAL_COLUMNS,
    image_folder: str | None = None,
) -> ImageIndex:
    """Index a data set for training: list its images, and split them.

    The arguments and errors are those of `list_images` and `split_images`.
    """
    index = list_images(
        path, val=val, case_variants=case_variants, columns=columns, image_folder=image_folder
    )
    return split_images(index, path, val=val, seed=seed, images_per_class=images_per_class)


def write_small_config(folder: Path, path: Path | str) -> Path:
    """Write a config of two stages that takes about two seconds."""
    config = folder / "small.yaml"
    config.write_text(SMALL_CONFIG.format(path=path))
    return config


def run_finetune(*arguments: object) -> Result:
    """Run the command line in this process, as a shell would."""
    return CliRunner().invoke(load_app(), [str(argument) for argument in arguments])


def rewrite(run: Path, name: str, change: Callable[[Any], None]) -> None:
    """Change a JSON file of a run as if the run had written it so, with its digest."""
    document = json.loads((run / name).read_text())
    change(document)
    write_covered(run, {name: json.dumps(document).encode()})


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of three class folders with twelve images each."""
    return draw_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session")
def small_run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a finished run; tests only read it."""
    folder = tmp_path_factory.mktemp("run")
    result = run_finetune("train", write_small_config(folder, images), "--run-dir", folder / "run")
    assert result.exit_code == 0, result.output
    return folder / "run"


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the sizes of all batches that a backbone has computed features of."""
    from finetune.model import ImageClassifier

    sizes: list[int] = []
    features = ImageClassifier.features

    def watched(self: ImageClassifier, images: torch.Tensor) -> torch.Tensor:
        if images.ndim == 4:  # features are passed on
            sizes.append(len(images))
        return features(self, images)

    monkeypatch.setattr(ImageClassifier, "features", watched)
    return sizes
