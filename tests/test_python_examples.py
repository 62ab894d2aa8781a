"""Every Python example of the documentation, run as it stands on a few images drawn for it."""

import contextlib
import io
import re
from pathlib import Path

import pytest
from conftest import draw_images
from PIL import Image

import finetune

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs" / "python.md"

CONFIG = """\
precision: float32
data: {path: photos, image_size: 32, batch_size: 8, augment: light, workers: 0}
model: {arch: shufflenet_v2_x0_5, weights: "builtin:glyphs", head: {hidden: [16]}}
stages:
  - {name: frozen, train: head, epochs: 1, lr: 1e-2}
  - {name: unfrozen, train: all, epochs: 1, lr: 1e-3}
lr_finder: {steps: 30, race_steps: 5}
"""

# A folder is trained with resnet34 and weights from the network; here with a small one for few epochs.
SMALL = """\
SMALL = {
    "model__arch": "shufflenet_v2_x0_5", "model__weights": "builtin:glyphs", "data__workers": 0,
    "stages__frozen__lr": 1e-2, "stages__frozen__epochs": 1, "stages__unfrozen__epochs": 1,
}
"""


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```$", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    draw_images(tmp_path / "photos", each=6)
    (tmp_path / "photos.yaml").write_text(CONFIG)
    Image.open(tmp_path / "photos" / "owl" / "owl00.png").save(tmp_path / "new.jpg")
    return tmp_path


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_the_examples_run_as_they_stand(photos: Path, page: str):
    examples = blocks(ROOT / page, "python")
    assert examples
    code = SMALL + "\n".join(examples).replace('train("photos",', 'train("photos", **SMALL,')
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, page, "exec"), {"__name__": "example"})
    assert "stage 1 of 2: frozen" in printed.getvalue()


def test_the_messages_that_are_quoted_are_those_that_come(photos: Path):
    with pytest.raises(finetune.ConfigError) as caught:
        finetune.train("photos.yaml", stages__frozen__epochs=1.5, optimizer__name="adan")
    assert blocks(DOCS, "text") == [f"{caught.value}\n"]


def test_every_name_of_the_package_is_documented():
    text = DOCS.read_text(encoding="utf-8")
    configs = {"HeadConfig", "OptimizerConfig", "LrFind", "Model", "__version__"}
    assert [name for name in finetune.__all__ if name not in text and name not in configs] == []
