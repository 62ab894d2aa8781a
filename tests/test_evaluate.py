import io
import json
import shutil

import pytest
import torch
from conftest import draw_images, rewrite, run_finetune

from finetune.display import Display
from finetune.metrics.single_label import score_single_label
from finetune.report.scores import FEW_IMAGES, few_images_warning, never_predicted_warning, show_scores


def scores_of(*arguments):
    result = run_finetune("evaluate", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout), result.stderr


def test_evaluating_a_run_gives_the_numbers_of_its_training(small_run):
    scores, _ = scores_of(small_run)
    confidence = scores.pop("confidence")  # of calibrated probabilities
    report = json.loads((small_run / "report.json").read_text())
    assert confidence["accuracy_interval"] == report["accuracy_intervals"]["val"]
    assert scores == report["val"]
    assert {"loss", "accuracy", "per_class", "confusion_matrix", "class_names"} <= set(scores)


def test_the_training_images_can_be_scored_too(small_run):
    assert scores_of(small_run, "--split", "train")[0]["images"] == 30


def test_another_folder_is_matched_by_class_name(small_run, tmp_path):
    draw_images(tmp_path, classes=("cat", "dog"), each=3)
    (tmp_path / "cat").rename(tmp_path / "zebra")  # red, as the model knows cats
    scores, said = scores_of(small_run, tmp_path)
    assert scores["class_names"] == ["cat", "dog", "owl"]
    assert [row["support"] for row in scores["per_class"]] == [0, 3, 0]
    assert "left out, not among the model's classes: zebra (3 images)" in said
    assert "classes of the model without an image here: cat, owl" in said


def test_an_unreadable_image_of_another_folder_is_named(small_run, tmp_path):
    draw_images(tmp_path, each=2)
    (tmp_path / "cat" / "torn.png").write_bytes((tmp_path / "cat" / "cat00.png").read_bytes()[:-50])
    result = run_finetune("evaluate", small_run, tmp_path)
    assert result.exit_code == 3
    assert "cat/torn.png: truncated PNG" in result.stderr


def test_images_that_moved_away_are_missed_by_name(small_run, tmp_path):
    copy = shutil.copytree(small_run, tmp_path / "run")
    rewrite(copy, "model.json", lambda model: model.update(root=str(tmp_path / "gone")))
    result = run_finetune("evaluate", copy)
    assert result.exit_code == 3
    assert f"{tmp_path / 'gone'}, which is not there" in result.stderr


def test_few_images_are_warned_of_with_what_they_leave_open(small_run):
    """Wilson's interval of 6 of 6 is 6 / (6 + 1.96²) to 1: 61% to 100%."""
    warning = "6 images say little: 100.00% right of these may be 61% to 100% of others"
    result = run_finetune("evaluate", small_run)
    assert f"warning: {warning}" in result.stdout
    logits = torch.eye(2).repeat(FEW_IMAGES // 2, 1)
    targets = torch.tensor([0, 1] * (FEW_IMAGES // 2))
    enough = score_single_label(logits, targets, ("ant", "bee"))
    assert few_images_warning(enough) is None
    fewer = score_single_label(logits[1:], targets[1:], ("ant", "bee"))
    assert few_images_warning(fewer).startswith("99 images say little")


def test_the_screen_shows_classes_and_confusions(small_run):
    result = run_finetune("evaluate", small_run)
    assert result.exit_code == 0
    assert "accuracy 100.00%" in result.stdout
    assert "balanced accuracy 100.00% (mean recall over classes)" in result.stdout
    assert "true \\ predicted" in result.stdout


def test_a_class_that_is_never_predicted_has_no_precision_on_screen():
    logits = torch.tensor([[2.0, 0.0, 0.0]] * 2)
    stream = io.StringIO()
    show_scores(Display(stream), score_single_label(logits, torch.tensor([0, 1]), ("ant", "bee", "wasp")))
    said = " ".join(stream.getvalue().split())
    assert "no image is given 1 class of 3: 'bee' (1 image); balanced accuracy shows it" in said
    assert "data.balance=sampler monitor=val_balanced_accuracy" in said
    table = stream.getvalue().split("true")[0]
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines() if line.strip()}
    assert rows["ant"] == ["0.5000", "1.0000", "0.6667", "1"]
    assert rows["bee"] == ["–", "0.0000", "0.0000", "1"]
    assert rows["wasp"] == ["–", "–", "–", "0"]


def test_several_classes_that_are_never_predicted_are_counted():
    logits = torch.tensor([[2.0, 0.0, 0.0]] * 3)
    warning = never_predicted_warning(
        score_single_label(logits, torch.tensor([0, 1, 2]), ("ant", "bee", "wasp"))
    )
    assert warning.startswith("no image is given 2 classes of 3: 'bee' (1 image), 'wasp' (1 image);")


def test_classes_that_are_all_predicted_are_not_warned_of():
    scores = score_single_label(torch.eye(3), torch.tensor([1, 0, 1]), ("ant", "bee", "wasp"))
    assert scores.accuracy == 0
    assert never_predicted_warning(scores) is None


@pytest.mark.parametrize("state", ["stopped", "interrupted", "diverged", "failed", "running"])
def test_a_run_that_is_not_done_is_evaluated_and_predicted_with_a_warning(small_run, images, tmp_path, state):
    copy = shutil.copytree(small_run, tmp_path / "run")
    (copy / "status.json").write_text(json.dumps({"state": state}))
    image = next(images.rglob("*.png"))
    for arguments in (("evaluate", copy, "--json"), ("predict", copy, image, "--json")):
        result = run_finetune(*arguments)
        assert result.exit_code == 0
        assert f"is not done (status: {state})" in " ".join(result.stderr.split())
        assert json.loads(result.stdout)


def test_nothing_is_said_of_a_status_that_is_done_or_missing_and_a_damaged_one_is_no_failure(
    small_run, tmp_path
):
    copy = shutil.copytree(small_run, tmp_path / "run")
    assert "is not done" not in scores_of(copy)[1]
    (copy / "status.json").write_text("{")
    assert "status: unreadable" in " ".join(scores_of(copy)[1].split())
    (copy / "status.json").unlink()
    assert "is not done" not in scores_of(copy)[1]


def test_what_is_no_run_is_said_so(tmp_path):
    result = run_finetune("evaluate", tmp_path)
    assert result.exit_code == 8
    assert "is not a finished run: it has no model.json" in result.stderr


def test_an_altered_model_description_is_no_traceback(small_run, tmp_path):
    copy = shutil.copytree(small_run, tmp_path / "run")
    model = json.loads((copy / "model.json").read_text())
    for change in ({"format": 99}, {"class_names": 3}, {"model": {}}, {"reading": {"x": 1}}):
        rewrite(copy, "model.json", lambda document, change=change: document.update(model | change))
        result = run_finetune("evaluate", copy)
        assert result.exit_code == 5, change
        assert "model" in result.stderr
