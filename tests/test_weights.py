import hashlib
import json
import os
import pickle
import random
import zipfile
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import run_finetune, some_quick, write_small_config
from safetensors.torch import save_file
from torchvision.models import Weights as TorchvisionWeights
from torchvision.models import WeightsEnum, densenet121, get_model, resnet18, resnet50, vgg16
from torchvision.models.densenet import DenseNet121_Weights
from torchvision.transforms._presets import ImageClassification

from finetune.errors import ConfigError, WeightsError
from finetune.model import download as download_module
from finetune.model import weights as weights_module
from finetune.model.catalogue import architectures, find_architecture
from finetune.model.classifier import ImageClassifier, build_classifier
from finetune.model.origin import Origin
from finetune.model.spec import ModelSpec
from finetune.model.weights import load_weights, pending_download

RESNET18 = "resnet18-f37072fd.pth"


def build(
    weights: str | Path, arch: str = "resnet18", say=lambda _: None, **fields: object
) -> ImageClassifier:
    spec = ModelSpec(arch, classes=3, **{"image_size": 64, **fields})
    return build_classifier(spec, weights=str(weights), seed=1, say=say)


@pytest.fixture
def resnet18_state() -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    return resnet18(num_classes=10).state_dict()


def assert_backbone_is(model: ImageClassifier, state: dict[str, torch.Tensor]) -> None:
    ours = model.backbone.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in ours.items())


def test_random_weights_need_no_file_and_still_know_their_normalisation():
    found = load_weights("none", find_architecture("inception_v3"))
    assert found.tensors is None
    assert found.preprocessing.image_size == 299
    assert found.preprocessing.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_a_file_of_weights_is_loaded_whatever_its_classifier(tmp_path, resnet18_state, suffix):
    path = tmp_path / f"mine{suffix}"
    save = save_file if suffix == ".safetensors" else torch.save
    save(resnet18_state, path)
    said: list[str] = []
    assert_backbone_is(build(path, say=said.append), resnet18_state)
    assert said == [
        f"mine{suffix} does not say how its images were normalised and resized; "
        "using what resnet18's default weights need (224 px)."
    ]


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict"])
def test_wrappers_of_training_scripts_are_unwrapped(tmp_path, resnet18_state, wrapper):
    parallel = {f"module.{name}": tensor for name, tensor in resnet18_state.items()}
    torch.save({wrapper: parallel, "epoch": 3}, tmp_path / "mine.pth")
    assert_backbone_is(build(tmp_path / "mine.pth"), resnet18_state)


def test_half_precision_weights_become_float32(tmp_path, resnet18_state):
    half = {name: t.half() if t.is_floating_point() else t for name, t in resnet18_state.items()}
    torch.save(half, tmp_path / "half.pth")
    model = build(tmp_path / "half.pth")
    assert model.backbone.conv1.weight.dtype == torch.float32
    assert torch.equal(model.backbone.conv1.weight, half["conv1.weight"].float())


def test_old_files_without_counts_of_batches_are_fine(tmp_path, resnet18_state):
    old = {name: t for name, t in resnet18_state.items() if not name.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth")
    assert build(tmp_path / "old.pth").backbone.bn1.num_batches_tracked == 0


def test_old_densenet_names_are_understood(tmp_path):
    state = densenet121().state_dict()
    old = {}
    for name, tensor in state.items():
        for kind in ("norm", "conv"):
            for i in "12":
                if "denselayer" in name:
                    name = name.replace(f"{kind}{i}.", f"{kind}.{i}.")
        old[name] = tensor
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "old.pth")
    assert_backbone_is(build(tmp_path / "old.pth", "densenet121"), state)
    assert DenseNet121_Weights.DEFAULT.url.endswith("a639ec97.pth")


def test_a_file_called_as_torchvision_calls_it_has_the_preprocessing_of_those_weights(tmp_path):
    path = tmp_path / "resnet50-11ad3fa6.pth"  # IMAGENET1K_V2, resized to 232 instead of 256
    torch.save(resnet50().state_dict(), path)
    found = load_weights(str(path), find_architecture("resnet50"), pytest.fail)
    assert found.preprocessing.resize_size == 232


def test_metadata_of_a_safetensors_file_prevails(tmp_path, resnet18_state):
    own = build("none").preprocessing.to_dict() | {
        "mean": [0.5, 0.25, 0.125],
        "image_size": 32,
        "resize_size": 36,
    }
    metadata = {"arch": "resnet18", "preprocessing": json.dumps(own)}
    save_file(resnet18_state, tmp_path / "mine.safetensors", metadata)
    model = build(tmp_path / "mine.safetensors", say=pytest.fail, image_size=None)
    assert model.spec.image_size == 32
    assert model.preprocessing.mean == (0.5, 0.25, 0.125)
    assert model.preprocessing.resize_size == 36
    with pytest.raises(
        ConfigError, match=r"holds weights of resnet18, not of resnet34; set model.arch: resnet18"
    ):
        build(tmp_path / "mine.safetensors", "resnet34")
    save_file(resnet18_state, tmp_path / "wrong.safetensors", {"preprocessing": "[1]"})
    with pytest.raises(WeightsError, match=r"the metadata of .* is wrong"):
        build(tmp_path / "wrong.safetensors")


def test_weights_of_another_architecture_are_refused_with_a_guess(tmp_path):
    torch.save(resnet50().state_dict(), tmp_path / "mine.pth")
    with pytest.raises(
        WeightsError,
        match=r"mine\.pth does not fit the architecture: "
        r"tensors \d+ unexpected \(layer1\.0\.conv3\.weight\), "
        r"\d+ of another shape \(layer1\.0\.conv1\.weight .*It looks like resnet50: set model.arch: resnet50",
    ):
        build(tmp_path / "mine.pth")


@pytest.mark.parametrize("name", some_quick(["googlenet", "inception_v3", "vit_b_32", "swin_t"], "googlenet"))
def test_an_architecture_is_found_by_the_names_and_shapes_of_its_tensors(tmp_path, name):
    options = {"init_weights": False, "aux_logits": True} if name in ("googlenet", "inception_v3") else {}
    torch.save(get_model(name, weights=None, **options).state_dict(), tmp_path / "mine.pth")
    with pytest.raises(WeightsError, match=f"It looks like {name}: set model.arch: {name}"):
        build(tmp_path / "mine.pth")


def test_missing_tensors_are_named(tmp_path, resnet18_state, monkeypatch):
    monkeypatch.setattr("finetune.model.fitting._SECONDS", 0.1)  # to look for an architecture that fits
    del resnet18_state["layer3.0.conv1.weight"]
    torch.save(resnet18_state, tmp_path / "mine.pth")
    with pytest.raises(WeightsError, match=r"1 missing \(layer3\.0\.conv1\.weight\)\. Set model.arch to the"):
        build(tmp_path / "mine.pth")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, resnet18_state, bad):
    resnet18_state["layer4.0.conv1.weight"][0, 0, 0, 0] = bad
    torch.save(resnet18_state, tmp_path / "mine.pth")
    with pytest.raises(WeightsError, match=r"layer4\.0\.conv1\.weight holds NaN or infinity"):
        build(tmp_path / "mine.pth")


@pytest.mark.slow
def test_a_classifier_that_is_not_a_number_does_not_matter(tmp_path):
    # torchvision's VGG16_Weights.IMAGENET1K_FEATURES has such a classifier.
    state = vgg16().state_dict()
    state["classifier.0.weight"].fill_(float("nan"))
    torch.save(state, tmp_path / "vgg16_features-amdegroot-88682ab5.pth")
    model = build(tmp_path / "vgg16_features-amdegroot-88682ab5.pth", "vgg16", say=pytest.fail)
    assert model.preprocessing.mean == pytest.approx((0.48235, 0.45882, 0.40784), abs=1e-4)
    assert model.preprocessing.std == pytest.approx((1 / 255,) * 3)


def test_integers_in_place_of_weights_are_refused(tmp_path, resnet18_state):
    resnet18_state["conv1.weight"] = resnet18_state["conv1.weight"].to(torch.int64)
    torch.save(resnet18_state, tmp_path / "mine.pth")
    with pytest.raises(WeightsError, match=r"conv1\.weight is torch\.int64"):
        build(tmp_path / "mine.pth")


class Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_code_in_a_file_is_not_executed(tmp_path):
    target = tmp_path / "executed"
    torch.save({"conv1.weight": Payload(target)}, tmp_path / "zipped.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"conv1.weight": Payload(target)}, protocol=2))
    for name in ("zipped.pth", "plain.pth"):
        with pytest.raises(WeightsError) as error:
            build(tmp_path / name)
        assert len(str(error.value).splitlines()) == 1
    with pytest.raises(
        WeightsError, match=r"holds more than tensors \(.*mkdir\), and finetune executes nothing"
    ):
        build(tmp_path / "zipped.pth")
    assert not target.exists()


def test_a_whole_pickled_model_is_refused_with_what_to_save_instead(tmp_path):
    torch.save(resnet18(), tmp_path / "model.pth")
    with pytest.raises(
        WeightsError, match=r"holds more than tensors \(.*ResNet.*Save only the model's state_dict"
    ):
        build(tmp_path / "model.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds no state dict but list"),
        ({}, "holds no state dict but dict"),
        ({"lr": 0.1}, r"holds 'lr' \(float\) among its tensors"),
        ({1: torch.zeros(1)}, r"holds 1 \(Tensor\) among its tensors"),
    ],
)
def test_a_file_that_holds_something_else_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "mine.pth")
    with pytest.raises(WeightsError, match=message):
        build(tmp_path / "mine.pth")


def test_a_declared_terabyte_is_refused_before_it_is_copied(tmp_path, resnet18_state, monkeypatch):
    monkeypatch.setattr("finetune.model.fitting._SECONDS", 0.1)  # to look for an architecture that fits
    resnet18_state["conv1.weight"] = torch.zeros(1).expand(10**6, 10**6)
    torch.save(resnet18_state, tmp_path / "mine.pth")
    with pytest.raises(WeightsError, match=r"1 of another shape \(conv1\.weight \(1000000, 1000000\)"):
        build(tmp_path / "mine.pth")
    positions = torch.zeros(1).expand(1, 10**12 + 1, 768)
    torch.save({"encoder.pos_embedding": positions}, tmp_path / "vit.pth")
    with pytest.raises(WeightsError, match=r"encoder\.pos_embedding \(1, 1000000000001, 768\)"):
        build(tmp_path / "vit.pth", "vit_b_32")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_torn_files_are_called_damaged(tmp_path, suffix):
    whole = tmp_path / f"whole{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)({"a": torch.arange(1000.0)}, whole)
    content = whole.read_bytes()
    torn = tmp_path / f"torn{suffix}"
    pieces = [
        b"",
        b"<html>not found</html>",
        content[:-1],
        content[:100],
        content[: len(content) // 2],
        b"\0" * 64,
    ]
    for piece in pieces:
        torn.write_bytes(piece)
        with pytest.raises(WeightsError, match=r"is damaged.*Restore it, or name other weights") as error:
            build(torn)
        assert len(str(error.value).splitlines()) == 1


def test_garbage_never_ends_in_anything_but_a_weights_error(tmp_path):
    chance = random.Random(0)
    torch.save({"a": torch.arange(100.0), "b": [torch.zeros(3)]}, tmp_path / "whole.pth")
    torch.save({"a": torch.zeros(9)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for source in ("whole.pth", "old.pth"):
        content = (tmp_path / source).read_bytes()
        for _ in range(150):
            damaged = bytearray(content)
            for _ in range(chance.randint(1, 20)):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            (tmp_path / "garbage.pth").write_bytes(damaged)
            with pytest.raises(WeightsError):
                build(tmp_path / "garbage.pth")


def test_an_archive_of_something_else_is_damaged(tmp_path):
    with zipfile.ZipFile(tmp_path / "mine.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(WeightsError, match="is damaged or not a file of weights"):
        build(tmp_path / "mine.pth")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"there is no file .*nothing\.pth"):
        build(tmp_path / "nothing.pth")
    with pytest.raises(WeightsError, match="there is no file or run folder some/where"):
        build("some/where")


def test_an_unknown_name_is_answered_with_the_known_ones():
    known = r"there is default, IMAGENET1K_V2, IMAGENET1K_V1, a \.safetensors"
    with pytest.raises(ConfigError, match=f"resnet50 has no weights called 'IMAGENET1K_V9'; {known}"):
        build("IMAGENET1K_V9", "resnet50")


def test_weights_named_for_another_architecture_name_it():
    with pytest.raises(ConfigError, match=r"is not for resnet18; set model.arch: resnet50"):
        build("ResNet50_Weights.IMAGENET1K_V2")
    with pytest.raises(ConfigError, match="is not for resnet18; no architecture has them"):
        build("Foo_Weights.IMAGENET1K_V2")


def test_an_unknown_builtin_is_answered_with_the_known_ones():
    with pytest.raises(ConfigError, match="there is no builtin:nothing; there is "):
        build("builtin:nothing")
    with pytest.raises(ConfigError, match=r"there is no builtin:\.\./secret"):
        build("builtin:../secret")


def test_every_entry_of_torchvision_can_be_named():
    for arch in architectures():
        for name in ("DEFAULT", *arch.weights):
            entry = weights_module._find_entry(name, arch)
            assert weights_module._find_entry(str(entry), arch) is entry
            assert weights_module._find_entry(entry.name, arch) is entry
            assert download_module._named_hash(Path(entry.url)) is not None


def test_cached_weights_are_used_without_the_network(hub_folder, resnet18_state, tmp_path, monkeypatch):
    hub_folder.mkdir(parents=True)
    torch.save(resnet18_state, hub_folder / RESNET18)
    said: list[str] = []
    model = build("default", say=said.append, image_size=None)
    assert_backbone_is(model, resnet18_state)
    assert (model.preprocessing.image_size, model.preprocessing.resize_size) == (224, 256)
    assert len(said) == 1
    assert said[0].endswith(
        "resnet18-f37072fd.pth is not the file that torchvision published (its sha256 differs); "
        "using it all the same."
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "default").mkdir()
    for name in ("default", "IMAGENET1K_V1", "ResNet18_Weights.IMAGENET1K_V1", "ResNet18_Weights.DEFAULT"):
        assert_backbone_is(build(name), resnet18_state)


def test_a_damaged_file_in_the_cache_is_to_be_deleted(hub_folder):
    hub_folder.mkdir(parents=True)
    (hub_folder / RESNET18).write_bytes(b"half a download")
    with pytest.raises(WeightsError, match=rf"{RESNET18} is damaged.*Delete it, and it is fetched again"):
        build("default")


def test_without_a_network_the_ways_out_are_told(hub_folder):
    said: list[str] = []
    with pytest.raises(WeightsError) as error:
        build("default", say=said.append)
    assert said == [f"fetching https://download.pytorch.org/models/{RESNET18} (45 MB) to {hub_folder}"]
    text = str(error.value)
    assert len(text.splitlines()) == 2
    for part in (
        f"{RESNET18} are not in {hub_folder}",
        f"download.pytorch.org/models/{RESNET18}",
        "Put that file into that folder",
        "builtin:glyphs",
        "none",
    ):
        assert part in text
    assert error.value.exit_code == 7
    assert list(hub_folder.iterdir()) == []


def test_an_impossible_image_size_is_refused_before_anything_is_fetched(hub_folder):
    with pytest.raises(ConfigError, match="needs a multiple of 16 pixels"):
        build("default", "vit_b_16", image_size=100)


def published(path: Path) -> WeightsEnum:
    """Publish a file as torchvision would, on this machine."""

    class Published(WeightsEnum):
        DEFAULT = TorchvisionWeights(
            url=path.as_uri(),
            transforms=partial(ImageClassification, crop_size=64, resize_size=72),
            meta={"_file_size": 45.0},
        )

    return Published.DEFAULT


def test_a_download_is_checked_and_kept(tmp_path, hub_folder, resnet18_state):
    torch.save(resnet18_state, tmp_path / "raw.pth")
    digest = hashlib.sha256((tmp_path / "raw.pth").read_bytes()).hexdigest()
    good = (tmp_path / "raw.pth").rename(tmp_path / f"mine-{digest[:8]}.pth")
    said: list[str] = []
    weights = weights_module.TorchvisionWeights(published(good))
    tensors, preprocessing, _ = weights.read(said.append)
    assert torch.equal(tensors["conv1.weight"], resnet18_state["conv1.weight"])
    assert preprocessing.resize_size == 72
    assert [line.split()[0] for line in said] == ["fetching"]
    good.rename(tmp_path / "gone.pth")  # now only the cache has it, and its hash is right
    weights.read(said.append)
    assert len(said) == 1


def test_a_download_with_a_wrong_hash_is_not_kept(tmp_path, hub_folder):
    torch.save({}, tmp_path / "mine-00000000.pth")
    with pytest.raises(WeightsError, match="invalid hash value"):
        weights_module.TorchvisionWeights(published(tmp_path / "mine-00000000.pth")).read(print)
    assert list(hub_folder.iterdir()) == []


@pytest.mark.skipif(not list(weights_module._BUILTIN.glob("glyphs.safetensors")), reason="not made yet")
def test_the_built_in_weights_load(hub_folder):
    from safetensors import safe_open

    with safe_open(weights_module._BUILTIN / "glyphs.safetensors", framework="pt") as file:
        arch = file.metadata()["arch"]
    model = build("builtin:glyphs", arch, say=pytest.fail, image_size=None)
    assert model(torch.zeros(2, 3, model.spec.image_size, model.spec.image_size)).shape == (2, 3)
    with pytest.raises(ConfigError, match=f"holds weights of {arch}, not of vgg11; set model.arch: {arch}"):
        build("builtin:glyphs", "vgg11")


def test_only_weights_that_are_not_here_have_to_be_fetched(tmp_path, hub_folder):
    arch = find_architecture("regnet_y_16gf")
    for name in ("none", "builtin:glyphs", "default/none.pth", str(tmp_path)):
        assert pending_download(name, arch) is None
    pending = pending_download("IMAGENET1K_SWAG_E2E_V1", arch)
    assert pending is not None
    assert pending.image_size == 384
    assert pending.megabytes == pytest.approx(319, abs=2)
    hub_folder.mkdir(parents=True)
    (hub_folder / pending.url.rpartition("/")[2]).touch()
    assert pending_download("IMAGENET1K_SWAG_E2E_V1", arch) is None
    assert pending_download("default", arch) is not None
    with pytest.raises(ConfigError, match="has no weights called 'V9'"):
        pending_download("V9", arch)


# Where weights came from, for the record of a run


def test_weights_know_where_they_came_from(hub_folder, resnet18_state, tmp_path):
    hub_folder.mkdir(parents=True)
    torch.save(resnet18_state, hub_folder / RESNET18)
    torch.save(resnet18_state, tmp_path / "mine.pth")
    digest = hashlib.sha256((tmp_path / "mine.pth").read_bytes()).hexdigest()
    arch = find_architecture("resnet18")

    def origin(name):
        return load_weights(name, arch, lambda _: None).source.to_dict()

    cached = hashlib.sha256((hub_folder / RESNET18).read_bytes()).hexdigest()
    expected = {"kind": "cache", "name": RESNET18, "version": None, "sha256": cached}
    assert origin("default") == expected
    path = str(tmp_path / "mine.pth")
    assert origin(path) == {"kind": "file", "name": path, "version": None, "sha256": digest}
    assert origin("none") == {"kind": "none", "name": "none", "version": None, "sha256": None}
    glyphs = load_weights("builtin:glyphs", find_architecture("shufflenet_v2_x0_5")).source
    assert (glyphs.kind, glyphs.name, len(glyphs.sha256)) == ("builtin", "builtin:glyphs", 64)


@pytest.mark.parametrize(
    ("origin", "text"),
    [
        (Origin("package", "some-weights", "1.2", "ab" * 32), "package some-weights 1.2 (sha256 abababab)"),
        (Origin("cache", "x.pth", sha256="cd" * 32), "x.pth in torch's cache (sha256 cdcdcdcd)"),
        (Origin("hub", "timm/resnet18"), "hub timm/resnet18"),
        (Origin("run", "/runs/a"), "run /runs/a"),
        (Origin("none", "none"), "random"),
    ],
)
def test_the_origin_of_weights_is_said_in_a_few_words(origin, text):
    assert str(origin) == text


def test_a_run_records_which_weights_its_backbone_began_with(small_run, images, tmp_path):
    recorded = json.loads((small_run / "started.json").read_text())["weights"]
    assert (recorded["kind"], recorded["name"], len(recorded["sha256"])) == ("builtin", "builtin:glyphs", 64)
    page = (small_run / "report.html").read_text()
    assert f"builtin:glyphs, a part of finetune (sha256 {recorded['sha256'][:8]})" in page
    config = write_small_config(tmp_path, images)
    result = run_finetune("train", config, f"model.weights={small_run}", "--run-dir", tmp_path / "run")
    assert result.exit_code == 0, result.output
    recorded = json.loads((tmp_path / "run" / "started.json").read_text())["weights"]
    digest = hashlib.sha256((small_run / "model.safetensors").read_bytes()).hexdigest()
    assert recorded == {"kind": "run", "name": str(small_run), "version": None, "sha256": digest}
