import math
import re
from dataclasses import replace

import pytest
import torch
from PIL import Image

from finetune.analysis.calibration import Calibration, Coverage
from finetune.metrics.single_label import score_single_label
from finetune.report.html_page import AnsweredImage, report_page
from finetune.report.plot import HistoryPlot, draw_history
from finetune.runs.recorder import EpochRow

ROWS = [
    EpochRow(stage, epoch, 2.0 - 0.3 * n, 1.9 - 0.2 * n, 0.2 + 0.1 * n, *[0.3] * 3, 1.0, 100.0)
    for n, (stage, epoch) in enumerate([("frozen", 1), ("frozen", 2), ("unfrozen", 1), ("unfrozen", 2)])
]
SURE = (Coverage(0.91234, 0.5, 0.975), Coverage(0.4, 1.0, 0.9))
NAMES = ("ant", "<bee>", "wasp")


def page(*, epochs=4, more=None, **changes):
    """Render the page of a run whose model never predicts a wasp."""
    targets = torch.tensor([0, 0, 1, 1, 2, 2])
    logits = torch.eye(3)[torch.tensor([0, 0, 1, 0, 0, 1])]
    report = {"run_dir": "runs/bugs", "epochs": epochs, "diagnosis": [], "early_stops": [], "ablations": []}
    report["best"] = {"stage": "unfrozen", "epoch": 1}
    report |= more or {}
    values = {
        "scores": {"val": score_single_label(logits, targets, NAMES)},
        "history": ROWS,
        "about": {"Architecture": "resnet18", "Data": "photos/<of bugs>"},
        "config": "seed: 1\n",
    }
    return report_page(report, **(values | changes))


def svgs(text):
    return re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)


def words(svg):
    """Return the texts of a drawing, which matplotlib writes into comments and elements."""
    return [word.strip() for word in re.findall(r"<text[^>]*>(.*?)</text>", svg, flags=re.DOTALL)]


def test_the_head_says_what_was_trained_on_what():
    text = page()
    assert "<dt>Architecture</dt><dd>resnet18</dd>" in text
    assert "<dt>Data</dt><dd>photos/&lt;of bugs&gt;</dd>" in text


def test_what_is_counted_has_the_number_of_its_noun():
    assert "· 4 epochs in 4.0 s" in page()
    assert "· 1 epoch in 4.0 s" in page(epochs=1)
    assert "· 1,200 epochs in 4.0 s" in page(epochs=1200)


@pytest.mark.parametrize(
    ("pick", "by", "text"),
    [
        ("race", ["knee", "minimum"], "0.0022 (race, won by knee and minimum), swept from weights none and"),
        ("slide", ["slide"], "0.0022 (slide), swept from weights none and a new head"),
    ],
)
def test_a_rate_that_was_found_says_by_what_and_from_which_weights(pick, by, text):
    weights = {"initial": "none", "trained_stages": [], "run": None}
    found = {"stage": "frozen", "lr": 0.0022, "pick": pick, "by": by, "weights": weights}
    assert text in page(lr_finds=[(found, b"")])


def answered(label, answer, name="a.jpg"):
    return AnsweredImage(name, label, answer, 0.987, Image.new("RGB", (40, 30), "red"))


def test_the_surest_mistakes_are_shown_with_what_the_model_says():
    answers = {"mistakes": [answered("<bee>", "ant")], "close": [answered("wasp", "wasp")]}
    text = page(answers=answers)
    assert "<b>&lt;bee&gt;</b>, not ant · 98.7%" in text
    assert "<b>wasp</b> · 98.7%" in text
    assert text.count("data:image/jpeg;base64,") == 2
    assert "Surest mistakes" not in page()


def test_an_image_without_a_class_is_said_to_have_none():
    answers = {"mistakes": [answered("", "ant"), answered("ant", "", "<img>\udcff.jpg")], "close": []}
    text = page(answers=answers)
    assert "<b>no class</b>, not ant" in text
    assert "<b>ant</b>, not without a class" in text
    assert "<img>" not in text


@pytest.mark.parametrize(
    ("calibration", "shown"),
    [
        (Calibration(1.0, (0.082, 0.082), (0.4, 0.4), SURE), ["off by 8.2% on average"]),
        (
            Calibration(2.194, (0.082, 0.058), (0.3693, 0.2663), SURE),
            ["divided by 2.19", "<td>8.2%</td><td>5.8%</td>", "<td>0.3693</td><td>0.2663</td>"],
        ),
    ],
    ids=["nothing gained", "calibrated"],
)
def test_the_page_says_how_far_probabilities_can_be_believed(calibration, shown):
    text = page(more={"calibration": calibration.to_dict()})
    for part in [*shown, "<td>50%</td><td>97.50%</td><td>0.9123</td>"]:
        assert part in text
    assert "Certainty" not in page()  # of a run that has no such numbers


def test_the_page_needs_no_other_file():
    text = re.sub(r'xmlns(:xlink)?="[^"]*"', "", page())
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    assert "http" not in re.sub(r"<!--.*?-->|<!DOCTYPE svg.*?>", "", text, flags=re.DOTALL)
    assert "<?xml" not in text


def test_losses_and_accuracy_stand_beside_each_other_with_ticks():
    wide, narrow = svgs(page())
    for svg in (wide, narrow):
        texts = words(svg)
        assert {"loss", "accuracy", "training", "validation", "best epoch"} <= set(texts)
        assert texts.count("epoch") == 2
        assert {"1", "2", "3", "4"} <= set(texts)
        assert sum(text.endswith("%") for text in texts) >= 4
        assert len([text for text in texts if re.fullmatch(r"\d\.\d+", text)]) >= 4


def test_the_chart_of_a_phone_is_as_wide_as_one_and_has_letters_to_read():
    wide, narrow = svgs(page())
    assert 'width="960"' in wide
    assert 'width="360"' in narrow
    box = float(re.search(r'viewBox="0 0 ([\d.]+) ', narrow)[1])
    sizes = [float(size) for size in re.findall(r"font(?:-size)?: ([\d.]+)px", narrow)]
    assert min(sizes) * 360 / box >= 11


def test_ids_of_both_charts_differ():
    wide, narrow = ({*re.findall(r'\bid="([a-z]\w{9,})"', svg)} for svg in svgs(page()))
    assert wide
    assert narrow
    assert not wide & narrow


def history(**changes):
    plot = HistoryPlot([1.0, 0.5], [1.1, 0.6], "accuracy", [0.4, 0.9], ["a", "b"], 1)
    return draw_history(replace(plot, **changes))


def test_the_best_epoch_and_the_start_of_a_stage_are_marked():
    assert history() != history(best=0)
    assert "var(--ink)" in history()
    assert history().count("stroke-dasharray") == 1 + history(stages=["a", "a"]).count("stroke-dasharray") + 1


def test_colours_are_those_of_the_page_by_day_and_by_night():
    assert not re.search(r"#0[1-5]0[1-5]0[1-5]", history())
    assert "rgb(var(--hit))" in history()


def test_equal_histories_give_equal_drawings():
    assert history() == history()


@pytest.mark.parametrize("last", [1e6, math.inf, math.nan])
def test_a_loss_that_explodes_does_not_squash_the_others(last):
    texts = words(
        history(train_losses=[1.0, 0.5, 0.4], val_losses=[1.1, 0.6, last], scores=[0.4] * 3, stages=["a"] * 3)
    )
    assert {"1", "2", "3"} <= set(texts)
    assert not [text for text in texts if re.fullmatch(r"\d+(\.\d+)?", text) and float(text) > 10]


def test_one_epoch_can_be_drawn():
    assert draw_history(HistoryPlot([1.0], [0.0], "mAP", [0.0], ["a"], 0))


def test_a_class_that_is_never_predicted_has_no_precision():
    text = page()
    assert "<tr><td>ant</td><td>0.5000</td><td>1.0000</td>" in text
    assert "<tr><td>wasp</td><td>–</td><td>0.0000</td>" in text


def test_tables_that_are_wider_than_a_phone_say_that_they_scroll():
    text = page()
    assert '<div class="wide many"><table>\n<tr><th>stage</th>' in text
    assert "scroll sideways" in text
