"""Trainings at rates over five decades, whose advice on the rate is followed as long as there is some."""

import json
import math
import re

import numpy as np
import pytest
from conftest import draw_images, run_finetune
from PIL import Image

from finetune.optim.learning_rates import parse_lr

CONFIG = """\
precision: float32
data: {{path: "{path}", image_size: 32, batch_size: 8, workers: 0{more}}}
model: {{arch: shufflenet_v2_x0_5, weights: "{weights}", head: {{hidden: [16]}}}}
lr_finder: {{steps: 40}}
stages:
  - {{name: frozen, train: head, epochs: 2, lr: 1e-2}}
  - {{name: unfrozen, train: all, epochs: 2, lr: "slice(1e-4, 1e-2)"}}
"""


def draw_stripes(root):
    """Draw pale stripes in two directions under much noise: two classes that are learned slowly."""
    generator = np.random.default_rng(1)
    wave = 20 * np.sin(np.arange(40) / 2)
    for name, stripes in (("across", wave[:, None]), ("along", wave[None, :])):
        (root / name).mkdir(parents=True)
        for i in range(48):
            pixels = 128 + stripes + generator.normal(0, 60, (40, 40))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / name / f"{i:02}.png")
    return root


@pytest.fixture(scope="session")
def data_sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    colours, stripes = draw_images(folder / "colours", each=30), draw_stripes(folder / "stripes")
    digits = ", images_per_class: 12"
    return {
        "colours": CONFIG.format(path=colours, more="", weights="builtin:glyphs"),
        "stripes": CONFIG.format(path=stripes, more="", weights="none"),
        "digits": CONFIG.format(path="builtin:digits", more=digits, weights="builtin:glyphs"),
    }


def advised(findings):
    """Return (stage, trouble, rate to try) of each finding that has advice on a rate."""
    found = []
    for finding in findings:
        match = re.search(r'stages\.(\w+)\.lr="?(.+?)"? \(now', finding["advice"])
        if match:
            found.append((match[1], finding["trouble"], match[2]))
    return found


def peak_rates(run):
    """Return the highest rate of the head in each stage."""
    peaks = {}
    for line in (run / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "step":
            peaks[event["stage"]] = max(peaks.get(event["stage"], 0.0), event["lrs"][-1])
    return peaks


@pytest.mark.slow
@pytest.mark.parametrize("rate", [1e-5, 1e-3, 1e-2, 1e-1, 1.0])
@pytest.mark.parametrize("name", ["colours", "stripes", "digits"])
def test_advice_on_a_rate_that_is_followed_is_never_taken_back(data_sets, tmp_path, name, rate):
    config = tmp_path / "config.yaml"
    config.write_text(data_sets[name])
    rates = {"frozen": f"{rate:g}", "unfrozen": f'"slice({rate / 10:g}, {rate:g})"'}
    ways, used = {"frozen": set(), "unfrozen": set()}, {}
    for turn in range(4):
        run = tmp_path / f"run{turn}"
        overrides = [f"stages.{stage}.lr={lr}" for stage, lr in rates.items()]
        result = run_finetune("train", config, "--run-dir", run, *overrides)
        if result.exit_code == 4:  # auto finds no rate that it can answer for
            return
        assert result.exit_code == 0, result.output
        before, used = used, peak_rates(run)
        for stage in used:
            if before and not math.isclose(used[stage], before[stage], rel_tol=0.05):
                ways[stage].add("up" if used[stage] > before[stage] else "down")
        findings = json.loads((run / "report.json").read_text())["diagnosis"]
        for stage, trouble, lr in advised(findings):
            if trouble == "rate too high":
                ways[stage].add("down")
            assert trouble != "rate too low" or "down" not in ways[stage]
            if "auto" not in lr:
                assert parse_lr(lr if "slice" in lr else float(lr)).last < used[stage], (
                    "no higher rate is named"
                )
            rates[stage] = f'"{lr}"' if "slice" in lr else lr
        assert ways["frozen"] != {"up", "down"}
        assert ways["unfrozen"] != {"up", "down"}
        if not advised(findings):
            return
