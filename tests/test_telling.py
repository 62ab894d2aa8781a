"""Which answers say most about a model: its surest mistakes, and what it only just has right."""

import json
from dataclasses import replace

import pytest
import torch

from finetune.commands.evaluate.evaluate import own_index
from finetune.commands.report.judged import Judged
from finetune.commands.report.pictures import on_page
from finetune.commands.train.telling import telling_answers
from finetune.runs.trained_model import load_trained


@pytest.fixture
def trained(small_run):
    return load_trained(small_run, torch.device("cpu"))


def test_mistakes_come_surest_first_and_right_answers_least_sure_first(trained):
    index = own_index(trained)
    samples = index.of_split("val")
    targets = torch.tensor([sample.target for sample in samples])
    logits = torch.zeros(6, 3)
    logits[torch.arange(6), targets] = torch.tensor([1.0, 5.0, 0.5, 0.0, 0.0, 0.0])
    logits[torch.arange(3, 6), (targets[3:] + 1) % 3] = torch.tensor([2.0, 9.0, 4.0])
    found = telling_answers(replace(trained, temperature=2.0), index, logits, targets)
    assert [told.sample for told in found.mistakes] == [samples[4], samples[5], samples[3]]
    assert [told.sample for told in found.close] == [samples[2], samples[0], samples[1]]
    first = found.mistakes[0]
    names = trained.class_names
    assert (first.label, first.answer) == (names[targets[4]], names[(targets[4] + 1) % 3])
    assert first.certainty == pytest.approx(float(torch.tensor([4.5, 0.0, 0.0]).softmax(0)[0]))
    shown = on_page(Judged(trained, index, "val", logits, targets), found.mistakes)
    assert [image.name for image in shown] == [told.sample.name for told in found.mistakes]
    assert max(shown[0].thumbnail.size) <= 160


def test_an_image_that_is_gone_is_left_out_of_the_page(trained, tmp_path):
    index = own_index(trained)
    logits, targets = torch.eye(3)[[0] * 6], torch.zeros(6, dtype=torch.int64)
    found = telling_answers(trained, index, logits, targets)
    judged = Judged(trained, replace(index, root=tmp_path), "val", logits, targets)
    assert on_page(judged, found.close) == []


def test_the_report_names_them(small_run):
    report = json.loads((small_run / "report.json").read_text())
    wrong = round(6 * (1 - report["val"]["accuracy"]))
    assert (len(report["mistakes"]), len(report["close"])) == (wrong, 6 - wrong)
    assert set(report["close"][0]) == {"image", "label", "answer", "certainty"}
    page = (small_run / "report.html").read_text()
    assert page.count('<div class="both">') == 6, "a picture and its heat map"
