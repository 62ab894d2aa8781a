"""`finetune report`, `evaluate --html`, and the page that a training leaves."""

import json
import re
import shutil

import pytest
import torch
from browser import Browser
from conftest import draw_images, rewrite, run_finetune
from PIL import Image

from finetune.analysis.label_flags import confident_doubts
from finetune.commands.evaluate.evaluate import own_index
from finetune.commands.report.judged import Judged
from finetune.commands.report.pictures import with_heat
from finetune.runs.trained_model import load_trained


def made(run, *arguments):
    """Make the page of a run anew; return what the command prints, and the page."""
    result = run_finetune("report", run, *arguments, "--json")
    assert result.exit_code == 0, result.output
    written = json.loads(result.stdout)
    with open(written["page"], encoding="utf-8") as file:
        return written, file.read()


def without_times(page):
    """Return a page without what the drawings and the clock decide."""
    page = re.sub(r"<dt>Finished</dt>.*", "", page)
    return re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)


def test_the_page_that_is_made_anew_is_that_of_the_training(small_run, tmp_path):
    written, page = made(small_run, "--output", tmp_path / "page.html")
    assert written["left_out"] == []
    assert written["bytes"] == len(page.encode())
    trained = (small_run / "report.html").read_text(encoding="utf-8")
    assert without_times(page) == without_times(trained)
    charts = re.findall(r'<svg class="chart".*?</svg>', page, flags=re.DOTALL)
    assert charts == re.findall(r'<svg class="chart".*?</svg>', trained, flags=re.DOTALL)
    assert len(charts) == 4


def test_without_its_images_the_page_says_what_it_leaves_out(small_run, tmp_path):
    copy = shutil.copytree(small_run, tmp_path / "run")
    rewrite(copy, "model.json", lambda model: model.update(root=str(tmp_path / "gone")))
    (copy / "report.html").unlink()
    written, page = made(copy)
    (why,) = written["left_out"]
    assert str(tmp_path / "gone") in why
    assert "Left out: pictures" in page
    assert "data:image/jpeg" not in page
    assert "Confusion matrix" in page
    assert written["page"] == str(copy / "report.html")


def test_the_page_says_what_a_check_of_the_images_finds(small_run, images, tmp_path):
    copy = shutil.copytree(small_run, tmp_path / "run")
    data = shutil.copytree(images, tmp_path / "data")
    rewrite(copy, "model.json", lambda model: model.update(root=str(data)))
    shutil.copy(data / "cat" / "cat00.png", data / "cat" / "cat01.png")
    Image.new("RGB", (40, 48)).save(data / "dog" / "dog02.png")
    _, page = made(copy, "--check")
    found = page.partition("What was found in the data")[2]
    assert "cat/cat00.png" in found
    assert "dog/dog02.png" in found
    assert "cat/cat01.png" not in made(copy)[1].partition("What was found in the data")[2]


def test_a_run_that_is_not_finished_has_no_page(small_run, tmp_path):
    copy = shutil.copytree(small_run, tmp_path / "run")
    (copy / "report.json").unlink()
    result = run_finetune("report", copy)
    assert result.exit_code == 8
    assert "is not a finished run" in result.stderr


@pytest.mark.parametrize(
    "change",
    [
        lambda report: report.pop("val"),
        lambda report: report.update(bad_images=3),
        lambda report: report["val"].pop("per_class"),
        lambda report: report.update(diagnosis=[{}]),
        lambda report: report["best"].update(epoch=99),
    ],
)
def test_a_damaged_report_is_named(small_run, tmp_path, change):
    copy = shutil.copytree(small_run, tmp_path / "run")
    report = json.loads((copy / "report.json").read_text())
    change(report)
    (copy / "report.json").write_text(json.dumps(report))
    result = run_finetune("report", copy)
    assert result.exit_code == 5, result.output
    assert "report.json is damaged or was changed" in result.stderr


def test_an_evaluation_writes_the_page_of_other_images(small_run, tmp_path):
    draw_images(tmp_path / "other", classes=("cat", "dog"), each=3)
    for path in (tmp_path / "other" / "dog").iterdir():  # red, as cats are
        shutil.copy(tmp_path / "other" / "cat" / "cat00.png", path)
    result = run_finetune("evaluate", small_run, tmp_path / "other", "--html", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<title>run: 50.00% — finetune</title>" in page
    assert "Surest mistakes" in page
    assert '<a href="#cell-1-0"' in page
    assert 'id="cell-1-0"' in page
    assert "Epochs" not in page
    assert "Certainty" in page


def test_a_page_that_cannot_be_written_is_refused_before_anything_is_computed(small_run, tmp_path):
    for arguments in (("report", small_run, "--output"), ("evaluate", small_run, "--html")):
        result = run_finetune(*arguments, tmp_path / "no" / "page.html")
        assert result.exit_code == 2
        assert "there is no folder" in result.stderr


@pytest.fixture
def judged(small_run):
    """Return answers of which the first two images have the label of another class."""
    trained = load_trained(small_run, torch.device("cpu"))
    index = own_index(trained)
    targets = torch.tensor([sample.target for sample in index.of_split("val")])
    logits = 6.0 * torch.nn.functional.one_hot(targets, 3).float()
    logits[:2] = logits[:2].roll(1, dims=1)
    logits[1] /= 2
    return Judged(trained, index, "val", logits, targets)


def test_cells_hold_the_surest_images_and_mistakes_come_first(judged):
    cells = judged.cells()
    assert sum(map(len, cells.values())) == 6
    kinds = [true == predicted for true, predicted in cells]
    assert kinds == sorted(kinds)
    assert {position for cell, own in cells.items() if cell[0] != cell[1] for position in own} == {0, 1}


def test_a_page_goes_without_heat_maps_where_there_is_no_memory_for_them(judged, monkeypatch):
    def fail(*_):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("finetune.commands.report.pictures.heat_maps", fail)
    images, why = with_heat(judged, judged.told([0, 1]))
    assert [image.heat for image in images] == [None, None]
    assert why == "There was no memory for heat maps."


def test_the_most_doubtful_label_comes_first(judged):
    doubtful, number = judged.doubtful()
    samples = judged.index.of_split("val")
    assert [told.sample for told in doubtful] == [samples[0], samples[1]][:number]
    assert doubtful[0].label != doubtful[0].answer


def test_labels_are_doubted_by_the_rule_of_confident_learning():
    probabilities = torch.tensor([[0.9, 0.1], [0.7, 0.3], [0.95, 0.05], [0.2, 0.8], [0.4, 0.6]])
    targets = torch.tensor([0, 0, 1, 1, 1])
    # Thresholds are 0.8 and (0.05 + 0.8 + 0.6) / 3 = 0.483.
    assert confident_doubts(probabilities, targets).tolist() == [False, False, True, False, False]


def a_page_with_mistakes(small_run, folder):
    """Write the page of an evaluation in which cats are taken for dogs, with hostile names of files."""
    draw_images(folder / "other", each=4)
    red = Image.open(folder / "other" / "cat" / "cat00.png").copy()
    for name in ("<script>alert(1)</script>", "'\"><img src=x onerror=alert(1)>"):
        red.save(folder / "other" / "dog" / f"{name.replace('/', '∕')}.png")
    result = run_finetune("evaluate", small_run, folder / "other", "--html", folder / "page.html")
    assert result.exit_code == 0, result.output
    return folder / "page.html"


@pytest.mark.slow
def test_the_page_works_in_a_browser(small_run, tmp_path):
    pages = [small_run / "report.html", a_page_with_mistakes(small_run, tmp_path)]
    with Browser(tmp_path) as browser:
        for page in pages:
            for width, dark in ((360, True), (1000, False)):
                browser.open(page.as_uri(), width=width, dark=dark)
                assert browser.evaluate("document.documentElement.scrollWidth") <= width
                assert browser.complaints == []
            browser.evaluate("document.querySelector('.matrix a').focus()")
            browser.evaluate("document.activeElement.click()")
            browser.wait_for("document.querySelectorAll('details[open] img').length > 0")
            assert browser.evaluate("document.activeElement.tagName") == "SUMMARY"
            browser.wait_for("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        assert browser.evaluate("document.images.length") > 6
        assert browser.call("Page.printToPDF", printBackground=True)["data"]
        assert browser.complaints == []


@pytest.mark.slow
def test_classes_are_searched_in_a_browser(tmp_path):
    from test_html_page import many_classes, page

    path = tmp_path / "page.html"
    path.write_text(page(scores={"Images": many_classes()}), encoding="utf-8")
    with Browser(tmp_path) as browser:
        browser.open(path.as_uri(), width=360)
        assert browser.evaluate("document.documentElement.scrollWidth") <= 360
        typing = "const f = document.querySelector('[data-filter=class-rows]'); f.value = 'SS 0007'; "
        browser.evaluate(typing + "f.dispatchEvent(new Event('input'))")
        left = "[...document.querySelectorAll('#class-rows [data-name]')].filter(row => !row.hidden).length"
        assert browser.evaluate(left) == 1
        assert browser.complaints == []
