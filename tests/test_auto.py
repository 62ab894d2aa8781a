"""`finetune auto`: it chooses, trains, and writes a config that repeats the training bit for bit."""

import hashlib
import io
import json
import os
from dataclasses import replace

import pytest
import torch
import torchvision
from conftest import draw_images, run_finetune
from several import draw_several

import finetune
from finetune.commands.auto import auto, choices, plan
from finetune.commands.auto.choices import Choices, config_of, config_text, first_choices
from finetune.commands.auto.plan import Cost, Plan, Planner
from finetune.commands.init import survey_data
from finetune.commands.rank.ranking import Ranking
from finetune.config.load import load_config, parse_config
from finetune.display import Display
from finetune.errors import ConfigError, ResourceError
from finetune.experiment.backbone_score import BackboneScore
from finetune.model import at_hand
from finetune.model.catalogue import weights_enum
from finetune.model.download import cached_path


@pytest.fixture(autouse=True)
def cache(hub_folder, monkeypatch):
    """Put random weights into torch's cache as if they were published, the only ones there are."""
    monkeypatch.setattr(at_hand, "PACKAGES", ())
    monkeypatch.setattr(at_hand, "_timm_architectures", lambda: [])
    hub_folder.mkdir(parents=True)
    torch.manual_seed(0)
    path = cached_path(weights_enum("squeezenet1_1")["DEFAULT"].url)
    torch.save(torchvision.models.get_model("squeezenet1_1").state_dict(), path)


@pytest.fixture
def short(monkeypatch):
    """Train for few epochs, on small images."""
    monkeypatch.setattr(choices, "FROZEN_EPOCHS", 2)
    monkeypatch.setattr(plan, "SIZES", (64, 96))
    monkeypatch.setattr(plan, "MOST_EPOCHS", 1)
    monkeypatch.setattr(auto, "first_choices", lambda survey: Choices(image_size=64, batch_size=8, epochs=1))


def digest(run):
    return hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.slow
def test_the_config_that_is_written_repeats_the_training(images, tmp_path, short):
    result = run_finetune("auto", images, "--minutes", "5", "--run-dir", tmp_path / "a", "--json")
    assert result.exit_code == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["config"] == f"{images.name}-auto.yaml"
    assert answer["arch"] == "squeezenet1_1"
    assert answer["weights"] == "default"
    assert answer["run_dir"] == str(tmp_path / "a")
    written = load_config(tmp_path / answer["config"])
    assert written.data.image_size == answer["image_size"]
    assert written.stages[0].lr.last == answer["lr"]
    assert not any(stage.lr.auto for stage in written.stages)
    again = run_finetune("train", answer["config"], "--run-dir", tmp_path / "b")
    assert again.exit_code == 0, again.output
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    twice = run_finetune("auto", images)
    assert twice.exit_code == 2
    assert "exists already and is left alone" in twice.stderr


@pytest.mark.slow
def test_how_the_data_are_read_is_said_and_stands_in_the_config(images, tmp_path, short):
    rows = [f"{image.relative_to(images)},{image.parent.name},x" for image in sorted(images.glob("*/*.png"))]
    (images / "kinds.csv").write_text("\n".join(["file,kind,other", *rows]))
    try:
        run = finetune.auto(
            images / "kinds.csv", run_dir=tmp_path / "a", data__columns__label="kind", quiet=True
        )
    finally:
        (images / "kinds.csv").unlink()
    assert run.status == "done"
    assert load_config(tmp_path / "kinds-auto.yaml").data.columns.label == "kind"
    with pytest.raises(ConfigError, match=r"auto takes data.columns.* it chooses the others"):
        finetune.auto(images, model__arch="resnet18", quiet=True)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere"], 2, "expected a folder or table of images"),
        (["empty"], 3, "empty"),
        (["one"], 3, "at least 2 classes"),
        (["two", "--output", "no/such.yaml"], 2, "there is no folder no"),
        (["two", "--minutes", "0"], 2, "Invalid value for '--minutes'"),
    ],
)
def test_mistakes_are_found_before_anything_is_measured(arguments, code, message, tmp_path):
    (tmp_path / "empty").mkdir()
    draw_images(tmp_path / "one", classes=("cat",))
    draw_images(tmp_path / "two", classes=("cat", "dog"))
    result = run_finetune("auto", *arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert sorted(os.listdir(tmp_path)) == ["empty", "hub", "one", "two"]


def test_without_weights_there_is_nothing_to_choose_from(images, tmp_path, hub_folder):
    next(hub_folder.iterdir()).unlink()
    result = run_finetune("auto", images)
    assert result.exit_code == 7
    assert "no pretrained weights are on this machine" in result.stderr
    assert not list(tmp_path.glob("*.yaml"))


def test_every_choice_is_in_the_text_with_its_reason(images):
    survey = survey_data(images)
    chosen = Choices(
        arch="timm:tf_efficientnet_lite0",
        image_size=160,
        batch_size=16,
        epochs=3,
        lr=1e-5,
        reasons={"arch": "the best", "image_size": "fits", "lr": "race, won by knee"},
    )
    text = config_text(images, "a.yaml", survey, chosen)
    for part in ("# the best", "# fits", "# race, won by knee", "finetune train a.yaml", "lr: 1.0e-05"):
        assert part in text
    config = parse_config(text, "a.yaml")
    assert config.model.arch == chosen.arch
    assert (config.data.image_size, config.data.batch_size) == (160, 16)
    assert [(stage.epochs, stage.views) for stage in config.stages] == [(30, "eval"), (3, None)]
    assert config.stages[0].lr.last == 1e-5
    alone = config_of(images, survey, replace(chosen, epochs=0))
    assert alone.stage_names == ["frozen"]


def test_a_table_of_several_classes_keeps_its_separator(tmp_path):
    table = draw_several(tmp_path / "several")
    survey = survey_data(table)
    assert config_of(table, survey, first_choices(survey)).data.label_separator == ";"


def test_few_images_make_small_batches(tmp_path):
    few = survey_data(draw_images(tmp_path / "few", each=10))
    assert first_choices(few).batch_size == 8
    many = survey_data(draw_images(tmp_path / "many", each=60))
    assert first_choices(many).batch_size == 32


class Scripted(Planner):
    """A planner whose steps take a known time, at 128 px a second for an epoch and ten for the head."""

    def measure(self, choices):
        if choices.image_size not in self.data:
            raise ConfigError("not of this size")
        return Plan(choices, Cost(10, 1).scaled(128, choices.image_size))


def planned(seconds, sizes=(64, 96, 128, 160, 192, 224, 300), largest=224):
    planner = Scripted(lambda choices: choices, torch.device("cpu"), sizes, lambda: seconds)
    return planner.plan(Choices(), largest)


@pytest.mark.parametrize(
    ("seconds", "size", "epochs"),
    [(1000, 224, 4), (40, 192, 4), (16, 128, 4), (5, 64, 4), (3.5, 64, 2), (1, 64, 0)],
)
def test_the_largest_images_that_fit_are_taken_else_fewer_epochs(seconds, size, epochs):
    chosen = planned(seconds).choices
    assert (chosen.image_size, chosen.epochs) == (size, epochs)
    assert ("epochs" in chosen.reasons) == (epochs < 4)


def ranked(*rows):
    """Return a ranking of made-up scores: architecture, and how many of 100 images are right."""
    scores = []
    for arch, right in rows:
        per_image = torch.tensor([1.0] * right + [0.0] * (100 - right))
        scores.append(BackboneScore(arch, "default", 128, right / 100, per_image, 1.0, 1, 1.0))
    return Ranking(tuple(scores), "accuracy", 100, on_val=False)


class Slow(Scripted):
    """A planner on which a resnet50 takes a hundred times as long, and a resnet34 twenty times."""

    def measure(self, choices):
        factor = {"resnet50": 100, "resnet34": 20}.get(choices.arch, 1)
        cost = super().measure(choices).cost
        return Plan(choices, Cost(cost.frozen * factor, cost.epoch * factor))


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (10_000, ("resnet50", 224, 4)),
        (600, ("resnet34", 160, 4)),
        (50, ("resnet18", 224, 4)),
        (1, ("resnet18", 64, 0)),
    ],
)
def test_a_backbone_that_is_too_slow_gives_way_to_one_that_is_as_good(seconds, expected):
    planner = Slow(
        lambda choices: choices, torch.device("cpu"), (64, 96, 128, 160, 192, 224), lambda: seconds
    )
    ranking = ranked(("resnet50", 90), ("resnet34", 89), ("resnet18", 88), ("alexnet", 50))
    chosen = auto.plan_best(planner, Choices(), ranking).choices
    assert (chosen.arch, chosen.image_size, chosen.epochs) == expected
    assert "by finetune rank, of 4 backbones" in chosen.reasons["arch"]


@pytest.mark.parametrize(("right", "size"), [(91, 224), (90, 224), (89, 128)])
def test_larger_images_are_kept_if_their_features_are_no_worse(right, size, monkeypatch):
    ranking = ranked(("resnet18", 90))
    larger = replace(ranking.best, score=right / 100, image_size=224)
    monkeypatch.setattr(auto, "score_backbone", lambda *_, **__: larger)
    monkeypatch.setattr(auto, "build_experiment", lambda *_, **__: None)
    planner = Scripted(lambda choices: choices, torch.device("cpu"), (128, 224), lambda: 1000)
    before = Plan(Choices(arch="resnet18", image_size=224), Cost(30, 3))
    quiet = Display(io.StringIO())
    chosen = auto.smaller_if_better(planner, before, ranking, quiet).choices
    assert chosen.image_size == size
    if size == 128:
        assert chosen.reasons["image_size"] == "89.0% at 224 px, 90.0% at 128 px"


def test_no_size_is_larger_than_that_of_the_weights():
    assert planned(1000, largest=160).choices.image_size == 160
    assert planned(1000, largest=300).choices.image_size == 300


def test_a_network_of_one_size_keeps_it():
    assert planned(1000, sizes=(224,)).choices.image_size == 224
    assert planned(20, sizes=(224,)).choices.epochs == 0
    with pytest.raises(ConfigError, match="not of this size"):
        planned(1000, sizes=())


def test_a_batch_that_does_not_fit_into_memory_is_halved(monkeypatch):
    planner = Planner(lambda chosen: chosen, torch.device("cpu"), None, lambda: 100)

    def try_with(most):
        def steps(self, chosen):
            if chosen.batch_size > most:
                raise torch.OutOfMemoryError("too much")
            return Cost(1, 1)

        monkeypatch.setattr(Planner, "_try", steps)
        return planner.measure(Choices(batch_size=32)).choices

    chosen = try_with(8)
    assert chosen.batch_size == 8
    assert chosen.reasons["batch_size"] == "16 did not fit into memory"
    with pytest.raises(ResourceError, match="does not fit"):
        try_with(1)
