"""`finetune rank`: the order, its uncertainty, what is left out and why, JSON, and what is written."""

import json

import pytest
import torch
import torchvision
from conftest import draw_images, run_finetune, write_small_config
from several import draw_several
from sklearn.metrics import average_precision_score

from finetune.commands.rank import candidates, rank
from finetune.commands.rank.ranking import Ranking, verdict
from finetune.config.load import load_config
from finetune.errors import WeightsError
from finetune.experiment import backbone_score
from finetune.experiment.backbone_score import BackboneScore
from finetune.experiment.build import build_experiment
from finetune.experiment.read_data import read_data
from finetune.model import at_hand
from finetune.model.catalogue import weights_enum
from finetune.model.download import cached_path

GLYPHS = "shufflenet_v2_x0_5"
KEYS = [
    "arch", "weights", "accuracy", "standard_error", "images_per_second", "parameters", "megabytes",
    "image_size", "score", "images", "behind", "behind_standard_error", "indistinguishable",
]  # fmt: skip


@pytest.fixture(autouse=True)
def cache(hub_folder, monkeypatch):
    """Return torch's cache, the only place with weights, and with those of one network."""
    monkeypatch.setattr(at_hand, "PACKAGES", ())
    monkeypatch.setattr(at_hand, "_timm_architectures", lambda: [])
    hub_folder.mkdir(parents=True)
    put("squeezenet1_1")
    return hub_folder


def put(arch):
    """Put random weights into torch's cache as if they were the published ones."""
    torch.manual_seed(0)
    torch.save(
        torchvision.models.get_model(arch).state_dict(), cached_path(weights_enum(arch)["DEFAULT"].url)
    )


def ranked(*arguments):
    result = run_finetune("rank", *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout), result.stderr


def experiment_of(config, **model):
    config = config.model_copy(update={"model": config.model.model_copy(update=model)})
    return build_experiment(config, torch.device("cpu"), read_data(config))


def test_a_list_best_first_of_what_is_at_hand(images, tmp_path):
    rows, said = ranked(write_small_config(tmp_path, images))
    assert [list(row) for row in rows] == [KEYS, KEYS]
    assert {row["arch"]: row["weights"] for row in rows} == {
        GLYPHS: "builtin:glyphs",
        "squeezenet1_1": "default",
    }
    assert rows[0]["accuracy"] >= rows[1]["accuracy"]
    assert rows[0]["behind"] == 0
    assert rows[0]["indistinguishable"] is True
    for row in rows:
        assert row["images"] == 36
        assert row["image_size"] == 32
        assert row["score"] == "accuracy"
        share = row["accuracy"]
        assert row["standard_error"] == pytest.approx((share * (1 - share) / 35) ** 0.5)
        assert row["images_per_second"] > 0
        network = torchvision.models.get_model(row["arch"])
        inside = list(network.fc.parameters() if row["arch"] == GLYPHS else network.classifier.parameters())
        assert row["parameters"] == sum(p.numel() for p in network.parameters()) - sum(
            p.numel() for p in inside
        )
        assert row["megabytes"] == pytest.approx(4 * row["parameters"] / 1e6, rel=0.1)
    assert "2 backbones on all images, each by a fit to the others" in said


def test_the_table_says_what_is_indistinguishable(images, tmp_path):
    result = run_finetune("rank", write_small_config(tmp_path, images), "squeezenet1_1", GLYPHS)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    head = next(line for line in lines if line.startswith("architecture"))
    columns = ["architecture", "weights", "px", "accuracy", "behind", "images/s", "parameters", "MB"]
    assert head.split() == columns
    what = "ridge regression on 36 images, each by a fit to the others; ± standard error"
    assert any(what in line for line in lines)
    assert lines[-1].startswith(("indistinguishable from", f"{GLYPHS} is ahead"))


def test_the_accuracy_is_that_of_fits_without_the_image(images, tmp_path):
    config = load_config(write_small_config(tmp_path, images))
    rows, _ = ranked(tmp_path / "small.yaml", GLYPHS)
    experiment = experiment_of(config)
    features = [backbone_score.image_features(experiment, split) for split in ("train", "val")]
    values = torch.cat([part.features for part in features])
    targets = torch.cat([part.targets for part in features])
    penalty = backbone_score.fit_ridge(values, torch.eye(3)[targets]).penalty
    right = 0
    for image in range(len(values)):
        others = torch.arange(len(values)) != image
        # The penalty is relative to the mean variance, which one image in 36 changes little.
        fit = backbone_score.fit_ridge(values[others], torch.eye(3)[targets[others]], penalties=[penalty])
        right += int(fit.predict(values[image : image + 1]).argmax() == targets[image])
    assert abs(right - 36 * rows[0]["accuracy"]) <= 1


def test_val_judges_on_the_validation_images(images, tmp_path):
    config = load_config(write_small_config(tmp_path, images))
    rows, said = ranked(tmp_path / "small.yaml", GLYPHS, "--val")
    assert "1 backbone on the validation images" in said
    experiment = experiment_of(config)
    train, val = (backbone_score.image_features(experiment, split) for split in ("train", "val"))
    fit = backbone_score.fit_ridge(train.features, train.one_hot(3)).predict(val.features)
    assert rows[0]["accuracy"] == pytest.approx(float((fit.argmax(1) == val.targets).double().mean()))
    assert rows[0]["images"] == len(val.samples)


def test_images_of_a_group_are_judged_by_fits_without_the_group(images, tmp_path):
    lines = ["image,label,patient"]
    for number, path in enumerate(sorted(images.glob("*/*.png"))):
        lines.append(f"{path},{path.parent.name},{number % 9}")
    table = tmp_path / "table.csv"
    table.write_text("\n".join(lines))
    config = write_small_config(tmp_path, table)
    _, said = ranked(config, GLYPHS, "data.columns={group: patient}")
    assert "on the validation images (others of its group would give an image away)" in said


def test_several_classes_are_ranked_by_mean_average_precision(tmp_path):
    table = draw_several(tmp_path / "several")
    config = write_small_config(tmp_path, table)
    overrides = ["data.label_separator=;", "data.columns.label=label"]
    rows, _ = ranked(config, GLYPHS, *overrides)
    assert rows[0]["score"] == "map"
    assert rows[0]["images"] == 64
    assert 0 <= rows[0]["standard_error"] < 0.2
    rows, _ = ranked(config, GLYPHS, "--val", *overrides)
    experiment = experiment_of(load_config(config, overrides))
    train, val = (backbone_score.image_features(experiment, split) for split in ("train", "val"))
    fit = backbone_score.fit_ridge(train.features, train.one_hot(3)).predict(val.features)
    expected = average_precision_score(val.targets.numpy(), fit.numpy(), average="macro")
    assert rows[0]["accuracy"] == pytest.approx(expected)
    result = run_finetune("rank", config, GLYPHS, *overrides)
    assert "by mAP of ridge regression on 64 images" in result.output


def test_the_score_is_what_the_config_monitors(images, tmp_path):
    config = write_small_config(tmp_path, images)
    assert ranked(config, GLYPHS, "monitor=val_macro_f1")[0][0]["score"] == "macro_f1"
    assert ranked(config, GLYPHS, "monitor=val_loss")[0][0]["score"] == "accuracy"


def test_metadata_has_no_part_in_it_and_that_is_said(images, tmp_path):
    lines = ["image,label,site"]
    lines += [f"{path},{path.parent.name},{path.parent.name}" for path in sorted(images.glob("*/*.png"))]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    config = write_small_config(tmp_path, tmp_path / "table.csv")
    without, _ = ranked(config, GLYPHS)
    rows, said = ranked(config, GLYPHS, "data.columns={metadata: [site]}")
    assert "metadata has no part in it" in said
    assert rows[0]["accuracy"] == without[0]["accuracy"]


def test_patterns_and_overrides_go_together_in_any_order(images, tmp_path):
    rows, said = ranked(write_small_config(tmp_path, images), "data.image_size=48", "squeezenet*", "seed=1")
    assert [(row["arch"], row["image_size"]) for row in rows] == [("squeezenet1_1", 48)]
    assert (
        "squeezenet* is left out: the weights of 1 of 2 architectures are not on this machine; "
        "--download fetches them" in said
    )


def test_without_an_image_size_each_network_has_its_own(images, tmp_path):
    rows, _ = ranked(write_small_config(tmp_path, images), "squeezenet1_1", "data.image_size=null")
    assert rows[0]["image_size"] == 224


def test_a_network_that_cannot_take_the_size_is_left_out_with_the_reason(images, tmp_path):
    put("vit_b_32")
    rows, said = ranked(write_small_config(tmp_path, images), "vit_b_32", GLYPHS, "data.image_size=40")
    assert [row["arch"] for row in rows] == [GLYPHS]
    assert "warning: vit_b_32 is left out:" in said
    assert "needs a multiple of 32 pixels" in said


def test_a_network_that_was_named_and_is_not_here_is_left_out_with_its_address(images, tmp_path):
    rows, said = ranked(write_small_config(tmp_path, images), "resnet18", GLYPHS)
    assert [row["arch"] for row in rows] == [GLYPHS]
    assert (
        "resnet18 is left out: its weights are not on this machine: "
        "https://download.pytorch.org/models/resnet18-f37072fd.pth (45 MB); --download fetches them" in said
    )


def test_nothing_at_hand_is_an_error_with_the_ways_out(images, tmp_path, cache):
    for path in cache.iterdir():
        path.unlink()
    config = write_small_config(tmp_path, images)
    resnet = ("model.arch=resnet34", "model.weights=default")
    result = run_finetune("rank", config, *resnet)
    assert result.exit_code == 7
    assert "There is nothing to rank: no pretrained weights are on this machine.\n" in result.stderr
    assert "Add --download to fetch some" in result.stderr
    named = run_finetune("rank", config, *resnet, "resnet18")
    assert named.exit_code == 7
    assert "none of the backbones could be used, as said above" in named.stderr


def test_a_download_without_a_network_says_which_file_to_put_where_and_goes_on(images, tmp_path, cache):
    rows, said = ranked(write_small_config(tmp_path, images), "resnet18", GLYPHS, "--download")
    assert [row["arch"] for row in rows] == [GLYPHS]
    assert f"resnet18 is left out: Weights resnet18-f37072fd.pth are not in {cache} and cannot" in said
    assert "Put that file into that folder" in said


def test_download_alone_tries_the_short_list_after_what_is_here(images, tmp_path, monkeypatch):
    monkeypatch.setattr(candidates, "CURATED", ("squeezenet1_1", "resnet18", "resnet50"))
    rows, said = ranked(write_small_config(tmp_path, images), "--download")
    assert {row["arch"] for row in rows} == {GLYPHS, "squeezenet1_1"}
    assert said.count("is left out: Weights") == 2


def test_the_short_list_exists_and_has_weights():
    from finetune.model import find_architecture

    for name in candidates.CURATED:
        if name.startswith("timm:"):
            pytest.importorskip("timm")
        assert find_architecture(name).weights


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet43"], "no architecture is called 'resnet43'; did you mean resnet34 or"),
        (["nothing*"], "nothing*: no architecture has such a name."),
        (["data.image_sizes=3", GLYPHS], "unknown key; did you mean 'image_size'?"),
        (["--epochs", "3"], "A key of the config is set without dashes: stages.frozen.epochs=3"),
        (["--top", "3"], "No such option"),
    ],
)
def test_mistakes_are_usage_errors(arguments, message, images, tmp_path):
    result = run_finetune("rank", write_small_config(tmp_path, images), *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_a_folder_of_one_class_is_a_data_error(tmp_path):
    result = run_finetune("rank", draw_images(tmp_path / "one", classes=("cat",)), "squeezenet1_1")
    assert result.exit_code == 3


def test_few_images_of_two_classes_are_ranked(tmp_path):
    folder = draw_images(tmp_path / "few", classes=("cat", "dog"), each=2)
    rows, _ = ranked(write_small_config(tmp_path, folder), GLYPHS, "squeezenet1_1")
    assert len(rows) == 2


def test_a_folder_of_images_is_enough_and_quiet_prints_the_best(images):
    result = run_finetune("rank", images, "squeezenet1_1", "data.image_size=32", "--quiet")
    assert result.stdout == "squeezenet1_1\n"


def test_write_puts_the_best_into_the_config(images, tmp_path):
    config = write_small_config(tmp_path, images)
    before = config.read_text()
    result = run_finetune("rank", config, "squeezenet1_1", "--write")
    assert result.exit_code == 0, result.output
    assert f"written to {config}: model.arch squeezenet1_1" in result.output
    expected = before.replace(GLYPHS, "squeezenet1_1").replace('"builtin:glyphs"', "default")
    assert config.read_text() == expected
    refused = run_finetune("rank", images, "--write")
    assert refused.exit_code == 2
    assert "its config is in no file" in refused.stderr


def test_many_images_are_thinned(images, tmp_path, monkeypatch):
    for module in (backbone_score, rank):
        monkeypatch.setattr(module, "MOST_IMAGES", 6)
    rows, _ = ranked(write_small_config(tmp_path, images), GLYPHS)
    assert rows[0]["images"] == 12


def made_up(arch, right, speed=1.0, parameters=1):
    per_image = torch.tensor(right, dtype=torch.float64)
    return BackboneScore(arch, "default", 32, float(per_image.mean()), per_image, speed, parameters, 1.0)


def test_what_differs_on_the_same_few_images_is_indistinguishable_from_the_best():
    best = made_up("a", [1] * 90 + [0] * 10)
    close = made_up("b", [1] * 89 + [0] * 11, speed=3.0)
    far = made_up("c", [1] * 60 + [0] * 40)
    ranking = Ranking((best, close, far), "accuracy", 100, on_val=False)
    assert ranking.indistinguishable == (best, close)
    assert ranking.behind(far) == (pytest.approx(0.3), pytest.approx((0.3 * 0.7 / 99) ** 0.5))
    assert [row["indistinguishable"] for row in ranking.to_list()] == [True, True, False]
    text = verdict(ranking)
    assert "indistinguishable from a (within 2 standard errors): b; the fastest of these is b" in text
    assert "a is ahead of all others by more than chance" in verdict(
        Ranking((best, far), "accuracy", 100, on_val=False)
    )


def test_an_error_that_is_no_finding_about_a_backbone_is_not_swallowed(images, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("a bug")

    monkeypatch.setattr(rank, "score_backbone", fail)
    result = run_finetune("rank", write_small_config(tmp_path, images), GLYPHS)
    assert isinstance(result.exception, RuntimeError)

    def run_out(*_, **__):
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(rank, "score_backbone", run_out)
    result = run_finetune("rank", write_small_config(tmp_path, images), GLYPHS)
    assert result.exit_code == WeightsError.exit_code
    assert "is left out: Out of memory: data.batch_size 8 does not fit" in result.output + result.stderr
