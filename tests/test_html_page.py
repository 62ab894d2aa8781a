import base64
import hashlib
import html
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from finetune.analysis.calibration import Bin, Calibration, Coverage
from finetune.metrics.single_label import score_single_label
from finetune.report.html_page import MOST_BYTES, ReportPage, TrainingPart, report_page
from finetune.report.page_rows import class_rows, rows_left_out
from finetune.report.pictures import AnsweredImage, Pictures
from finetune.report.plot import HistoryPlot, draw_history
from finetune.runs.history import EpochRow

ROWS = [
    EpochRow(stage, epoch, 2.0 - 0.3 * n, 1.9 - 0.2 * n, 0.2 + 0.1 * n, *[0.3] * 3, 1.0, 100.0)
    for n, (stage, epoch) in enumerate([("frozen", 1), ("frozen", 2), ("unfrozen", 1), ("unfrozen", 2)])
]
SURE = (Coverage(0.91234, 0.5, 0.975), Coverage(0.4, 1.0, 0.9))
FOUND = {
    "stage": "frozen",
    "lr": 0.0022,
    "pick": "slide",
    "by": ["slide"],
    "weights": {"initial": "none", "trained_stages": [], "run": None},
}
NAMES = ("ant", "<bee>", "wasp")


def page(*, epochs=4, more=None, **changes):
    """Render the page of a run whose model never predicts a wasp."""
    targets = torch.tensor([0, 0, 1, 1, 2, 2])
    logits = torch.eye(3)[torch.tensor([0, 0, 1, 0, 0, 1])]
    report = {"run_dir": "runs/bugs", "epochs": epochs, "diagnosis": [], "early_stops": [], "ablations": []}
    report["best"] = {"stage": "unfrozen", "epoch": 1}
    report |= more or {}
    training = {"history": ROWS, "config": "seed: 1\n"}
    training |= {key: changes.pop(key) for key in ("history", "steps", "lr_finds") if key in changes}
    coverage = [Coverage(**row) for row in report.get("calibration", {}).get("coverage", ())]
    values = {
        "scores": {"Validation images": score_single_label(logits, targets, NAMES)},
        "about": {"Architecture": "resnet18", "Data": "photos/<of bugs>"},
        "coverage": coverage,
    }
    return report_page(ReportPage("bugs", **(values | changes), training=TrainingPart(report, **training)))


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
    assert text in page(lr_finds=[(FOUND | {"pick": pick, "by": by}, b"")])


def answered(label, answer, name="a.jpg"):
    return AnsweredImage(name, label, answer, 0.987, Image.new("RGB", (40, 30), "red"))


def test_the_surest_mistakes_are_shown_with_what_the_model_says():
    pictures = Pictures([answered("<bee>", "ant")], [answered("wasp", "wasp")])
    text = page(pictures=pictures)
    assert "<b>&lt;bee&gt;</b>, not ant · 98.7%" in text
    assert "<b>wasp</b> · 98.7%" in text
    assert text.count("data:image/jpeg;base64,") == 2
    assert "Surest mistakes" not in page()


def test_an_image_without_a_class_is_said_to_have_none():
    pictures = Pictures([answered("", "ant"), answered("ant", "", "<img>\udcff.jpg")])
    text = page(pictures=pictures)
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
    assert "://" not in re.sub(r"<!--.*?-->|<!DOCTYPE svg.*?>", "", text, flags=re.DOTALL)
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
    assert "<td>ant</td><td>0.5000</td><td>1.0000</td>" in text
    assert "<td>wasp</td><td>–</td><td>0.0000</td>" in text


def test_tables_that_are_wider_than_a_phone_say_that_they_scroll():
    text = page()
    assert '<div class="wide many tall"><table>\n<tr><th>stage</th>' in text
    assert "scroll sideways" in text


HOSTILE = ("<script>alert(1)</script>", "\"quoted' & `", "</style></script>", "\u202egnp.exe", "a\nb")


def many_classes(classes=1000, images=6000, names=None):
    """Return scores of a model that takes some classes for their neighbours."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(images) % classes
    moved = torch.rand(images, generator=generator) < 0.3
    answers = torch.where(moved, (targets + 1) % classes, targets)
    logits = torch.nn.functional.one_hot(answers, classes).float()
    return score_single_label(logits, targets, names or tuple(f"class {n:04}" for n in range(classes)))


def noise(side=160):
    """Return a picture that no JPEG makes small."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))


def test_no_name_of_a_class_or_file_can_inject_anything():
    targets = torch.arange(5).repeat(2)
    scores = score_single_label(torch.eye(5)[(targets + torch.arange(10) // 5) % 5], targets, HOSTILE)
    shown = [AnsweredImage(f"{name}.png", name, name, 0.5, Image.new("RGB", (8, 8))) for name in HOSTILE]
    cells = {(n, (n + 1) % 5): [image] for n, image in enumerate(shown)}
    text = page(
        scores={"Images": scores},
        pictures=Pictures(shown, shown, shown, 5, cells),
        about=dict.fromkeys(HOSTILE, HOSTILE[0]),
        findings=[("warning", name) for name in HOSTILE],
        left_out=HOSTILE,
    )
    assert text.count("<script") == 1
    assert text.count("</style>") == len(re.findall(r"<style\b", text))
    assert "<script>" not in text
    assert "\u202e" not in text
    assert 'title="&#34;quoted' in text


def test_a_page_of_a_thousand_classes_has_the_worst_first_and_no_matrix():
    text = page(scores={"Images": many_classes()})
    assert len(text.encode()) < MOST_BYTES
    assert "Confusion matrix" not in text
    assert 'data-filter="class-rows"' in text
    assert 'data-filter="confusions"' in text
    scores = [
        float(f1) for f1 in re.findall(r'<tr data-name="[^"]*">(?:<td>[^<]*</td>){3}<td>([\d.]+)', text)
    ]
    assert len(scores) == 1000
    assert scores == sorted(scores)
    counts = [int(n) for n in re.findall(r'class="soft">(\d+) images?, \d+% of its class', text)]
    assert len(counts) == 300
    assert counts == sorted(counts, reverse=True)


def test_a_page_is_never_larger_than_five_megabytes():
    picture = noise()
    shown = [AnsweredImage("n" * 250, "a" * 250, "b", 0.5, picture, picture)] * 12
    long = tuple(f"{n:05} {'name ' * 50}" for n in range(1000))
    cells = {(n, n + 1): shown[:6] for n in range(40)}
    text = page(
        scores={"Images": many_classes(names=long)},
        pictures=Pictures(shown, shown, shown, 12, cells),
        lr_finds=[(FOUND, bytes(300_000))] * 20,
    )
    assert 1_000_000 < len(text.encode()) <= MOST_BYTES
    assert "had no room" in text


def test_more_classes_than_a_page_has_rows_for_are_counted():
    scores = many_classes(1600, 3200)
    assert (len(class_rows(scores)), rows_left_out(scores)) == (1500, 100)
    assert (len(class_rows(many_classes(20, 40))), rows_left_out(many_classes(20, 40))) == (20, 0)


def test_cells_of_the_matrix_open_their_pictures_without_a_script():
    shown = [AnsweredImage("a.png", "ant", "<bee>", 0.9, Image.new("RGB", (8, 8)))]
    text = page(pictures=Pictures(cells={(1, 0): shown, (2, 2): shown}))
    assert 'href="#cell-1-0" title="&lt;bee&gt; → ant">1</a>' in text
    details = re.search(r"<details[^>]*>(?:(?!</details>).)*</details>", text, flags=re.DOTALL)[0]
    assert 'id="cell-1-0"' in details
    assert "data:image/jpeg" in details
    assert "cell-2-2" not in text, "no image is in this cell"


def test_the_headline_has_its_interval():
    text = page()  # three of six are right
    assert "<small>(18.8 – 81.2%)</small>" in text
    assert "95% certainty" in text


def test_heat_maps_stand_beside_their_pictures():
    picture = Image.new("RGB", (40, 30), "red")
    one = AnsweredImage("a.jpg", "ant", "wasp", 0.9, picture, picture)
    text = page(pictures=Pictures([one], heat="In colour: what speaks for the answer."))
    assert text.count("data:image/jpeg;base64,") == 2
    assert "In colour: what speaks for the answer." in text


def test_loss_and_rates_are_drawn_by_step_with_the_stages():
    rows = {n: {"step": n, "loss": 2.0 / n, "lrs": [0.001 * n, 0.01 * n]} for n in range(1, 6)}
    text = page(steps={"frozen": rows, "unfrozen": rows})
    chart = re.search(
        r'<svg class="chart"[^>]*aria-label="Learning rates by step".*?</svg>', text, re.DOTALL
    )[0]
    assert chart.count('<line class="stage"') == 2
    assert ">unfrozen<" in chart
    assert chart.count("<polyline") == 2


def test_the_charts_of_certainty_come_with_the_numbers():
    text = page(more={"calibration": Calibration(1.0, (0.1, 0.1), (0.4, 0.4), SURE).to_dict()})
    assert text.count('<svg class="chart"') == 1
    bins = [Bin(0.9, 0.8, 5), Bin(0.5, 0.5, 3)]
    assert page(bins=bins, coverage=SURE).count('<svg class="chart"') == 2


def test_only_the_script_of_the_page_may_run():
    text = page()
    script = re.search(r"<script[^>]*>(.*?)</script>", text, flags=re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html.unescape(text)


def test_what_is_left_out_is_said():
    assert "Left out: pictures, the folder is gone" in page(left_out=["pictures, the folder is gone"])


def test_very_many_epochs_are_listed_in_part():
    rows = [replace(ROWS[0], epoch=n) for n in range(1, 2001)]
    rows[1234] = replace(rows[1234], stage="unfrozen", epoch=1)
    text = page(history=rows)
    assert 'class="best"' in text
    assert "Some of 2,000 epochs" in text
    assert len(text.encode()) < 1_000_000
