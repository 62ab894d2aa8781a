"""The package as a notebook or another program uses it: `import finetune`."""

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import draw_images, run_finetune, write_small_config
from PIL import Image
from several import draw_several

import finetune
from finetune.api.terms import in_python, python_terms
from finetune.errors import Interrupted, Stopped

ROOT = Path(__file__).parents[1]


def small_settings(path: Path) -> dict[str, object]:
    return {
        "precision": "float32",
        "data": {"path": path, "image_size": 32, "batch_size": 8, "augment": "light", "workers": 0},
        "model": {"arch": "shufflenet_v2_x0_5", "weights": "builtin:glyphs", "head": {"hidden": [16]}},
        "stages": [{"name": "frozen", "train": "head", "epochs": 1, "lr": 1e-2}],
    }


@pytest.fixture(scope="module")
def run(images, tmp_path_factory) -> finetune.Run:
    return finetune.train(small_settings(images), run_dir=tmp_path_factory.mktemp("api") / "run", quiet=True)


@pytest.fixture(scope="module")
def model(small_run) -> finetune.Model:
    return finetune.load(small_run, device="cpu")


# The package itself


def test_importing_the_package_imports_nothing_heavy():
    heavy = ["torch", "numpy", "pandas", "fastai", "pydantic", "rich", "typer", "PIL", "yaml"]
    code = f"import sys, finetune; dir(finetune); print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.slow
def test_using_a_model_imports_no_fastai_no_compiler_and_leaves_no_stand_in_for_it(small_run):
    code = (
        f"import sys, finetune; finetune.load({str(small_run)!r})\n"
        "print({'torch._dynamo', 'fastai'} & sys.modules.keys())\n"
        "import torch._dynamo.utils; print(torch._dynamo.utils.__file__.endswith('utils.py'))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout.split() == ["set()", "True"]


def test_every_name_that_is_listed_is_there_and_no_other():
    assert dir(finetune) == sorted(finetune.__all__)
    for name in finetune.__all__:
        assert getattr(finetune, name) is not None
    with pytest.raises(AttributeError, match="module 'finetune' has no attribute 'trian'"):
        finetune.trian  # noqa: B018


def test_errors_are_those_of_the_commands():
    for name in finetune.__all__:
        if name.endswith("Error"):
            assert issubclass(getattr(finetune, name), finetune.FinetuneError)


# Training


def test_python_and_the_command_line_train_the_same_model(images, small_run, tmp_path):
    again = finetune.train(write_small_config(tmp_path, images), run_dir=tmp_path / "run", quiet=True)
    assert (again.directory / "model.safetensors").read_bytes() == (
        small_run / "model.safetensors"
    ).read_bytes()
    assert again.report["val"] == json.loads((small_run / "report.json").read_text())["val"]


def test_a_run_holds_what_its_training_left(run):
    assert run.status == "done"
    assert [row.stage for row in run.epochs] == ["frozen"]
    assert run.best == run.epochs[0]
    assert run.scores["val"].accuracy == run.report["val"]["accuracy"] == run.best.val_accuracy
    assert set(run.scores) == {"val"}
    assert run.config.stages[0].epochs == 1
    assert run.model.classes == ("cat", "dog", "owl")
    assert finetune.Run(run.directory).report == run.report


def test_the_history_is_a_data_frame_where_there_is_pandas(run):
    pandas = pytest.importorskip("pandas")
    assert isinstance(run.history, pandas.DataFrame)
    assert list(run.history["val_loss"]) == [row.val_loss for row in run.epochs]


def test_the_history_is_a_list_of_dictionaries_without_pandas(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert [row["val_loss"] for row in run.history] == [row.val_loss for row in run.epochs]


def test_a_run_shows_itself_in_a_line_and_in_a_notebook(run):
    assert (
        repr(run)
        == f"<finetune.Run {run.directory}: val_accuracy {run.best.val_accuracy:.4f} (stage frozen, epoch 1)>"
    )
    page = run._repr_html_()
    assert "<th>val_loss</th>" in page
    assert f"<td>{run.best.val_loss:.4f}</td>" in page


def test_keys_can_be_overridden_by_keyword_and_by_dotted_name(images, tmp_path):
    changed = finetune.train(
        small_settings(images),
        run_dir=tmp_path / "run",
        quiet=True,
        overrides={"stages.frozen.epochs": 2},
        seed=7,
        stages__frozen__lr=2e-2,
    )
    stage = changed.config.stages[0]
    assert (changed.config.seed, stage.epochs, stage.lr.last) == (7, 2, 2e-2)
    assert len(changed.epochs) == 2


def test_a_config_object_trains(images, tmp_path):
    config = finetune.Config.model_validate(small_settings(images) | {"data": {"path": str(images)}})
    changes = {"data__image_size": 32, "data__workers": 0, "data__batch_size": 8}
    run = finetune.train(config, run_dir=tmp_path / "run", quiet=True, **changes)
    assert run.config.data.image_size == 32
    assert config.data.image_size is None


@pytest.mark.parametrize("table", [False, True])
def test_a_folder_or_a_table_trains_with_the_defaults_of_init(tmp_path, table):
    draw_images(tmp_path / "photos")
    source: Path = tmp_path / "photos"
    if table:
        source = tmp_path / "labels.csv"
        rows = [f"{path.relative_to(tmp_path)},{path.parent.name}" for path in tmp_path.rglob("*.png")]
        source.write_text("\n".join(["image,label", *sorted(rows)]))
    small = small_settings(source)
    run = finetune.train(
        source,
        quiet=True,
        data__image_size=32,
        data__workers=0,
        model__arch="shufflenet_v2_x0_5",
        model__weights="builtin:glyphs",
        stages=small["stages"],
    )
    assert run.directory.parent == Path("runs")
    assert run.directory.name.startswith(f"{source.stem}-")
    assert run.config.data.batch_size == 8  # what `finetune init` chooses for so few images


def test_quiet_prints_warnings_alone_and_otherwise_the_epochs_are_printed(images, tmp_path, capsys):
    finetune.train(small_settings(images), run_dir=tmp_path / "quiet", quiet=True)
    warning, advice = capsys.readouterr().out.splitlines()
    assert warning.startswith("warning: 6 images say little")
    assert advice.startswith("Score the model on more images")
    finetune.train(small_settings(images), run_dir=tmp_path / "loud")
    assert "stage 1 of 1: frozen" in capsys.readouterr().out


def test_a_thread_can_train(images, tmp_path):
    runs = []
    work = threading.Thread(
        target=lambda: runs.append(
            finetune.train(small_settings(images), run_dir=tmp_path / "run", quiet=True)
        )
    )
    work.start()
    work.join()
    assert [run.status for run in runs] == ["done"]


def test_a_run_is_continued_with_more_epochs(images, tmp_path):
    first = finetune.train(small_settings(images), run_dir=tmp_path / "run", quiet=True)
    more = [*small_settings(images)["stages"], {"name": "all", "train": "all", "epochs": 1, "lr": 1e-3}]
    again = finetune.train(first, resume=True, quiet=True, stages=more)
    assert again.directory == first.directory
    assert [row.stage for row in again.epochs] == ["frozen", "all"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"overwite": True}, "keyword 'overwite': no argument or key of a config; did you mean 'overwrite'"),
        (
            {"stages__frozen__epochs": 1.5},
            r"keyword 'stages__frozen__epochs' stages.frozen.epochs: expected a whole",
        ),
        ({"overrides": {"optimizer.name": "adan"}}, r"overrides\['optimizer.name'\] .* did you mean 'adam'"),
        ({"overrides": {"": 1}}, "expected a key such as seed, data.batch_size"),
        ({"seed__": 1}, "keyword 'seed__': expected a key such as seed"),
        ({"force": True}, "force=True is for resume=True"),
        ({"overwrite": True, "resume": True}, "leave out one"),
    ],
)
def test_mistakes_in_arguments_are_named_as_python_names_them(images, tmp_path, arguments, message):
    with pytest.raises(finetune.ConfigError, match=message):
        finetune.train(small_settings(images), run_dir=tmp_path / "run", **arguments)
    assert not (tmp_path / "run").exists()


def test_mistakes_in_a_dictionary_are_named_by_their_keys(images):
    settings = small_settings(images) | {"modle": {}}
    with pytest.raises(finetune.ConfigError, match=r"^config modle: unknown key; did you mean 'model'\?$"):
        finetune.train(settings)
    with pytest.raises(finetune.ConfigError, match=r"a path, a dictionary or a finetune.Config .* got int"):
        finetune.train(3)


def test_a_run_that_is_in_the_way_is_reported_in_terms_of_arguments(images, run):
    with pytest.raises(finetune.RunError) as caught:
        finetune.train(small_settings(images), run_dir=run)
    assert "resume=True" in str(caught.value)
    assert "overwrite=True" in str(caught.value)
    assert "--" not in str(caught.value)


def test_a_run_is_no_folder_of_images(run):
    with pytest.raises(finetune.ConfigError, match="is a run; add resume=True to resume it"):
        finetune.train(run)


def test_no_key_of_a_config_is_hidden_by_an_argument():
    for function in (finetune.train, finetune.lr_find):
        assert not set(function.__kwdefaults__) & set(finetune.Config.model_fields)


# Interrupts


def test_an_interrupt_is_a_keyboard_interrupt_that_says_how_to_continue():
    with (
        pytest.raises(KeyboardInterrupt, match=r'resumed with finetune.train\("runs/a", resume=True\)'),
        python_terms(),
    ):
        raise Stopped("Stopped by SIGINT and saved.\nIt can be resumed with finetune train --resume runs/a")
    with pytest.raises(KeyboardInterrupt), python_terms():
        raise Interrupted("Interrupted at once; nothing new was saved.")


def test_another_signal_is_an_error_of_ours():
    with pytest.raises(Stopped, match=r"Stopped by SIGTERM .*\n.*resume=True"), python_terms():
        raise Stopped("Stopped by SIGTERM and saved.\nResume with: finetune train --resume runs/a")


def test_options_in_messages_become_arguments():
    assert (
        in_python("Name another --run-dir, or add --force.") == "Name another run_dir=…, or add force=True."
    )


# Prediction


def photo(folder: Path, name: str = "owl") -> Path:
    return folder / name / f"{name}02.png"


def same(one: finetune.Prediction, other: finetune.Prediction) -> bool:
    """Tell whether two answers are the same but for the last bits, which depend on the size of the batch."""
    return dict(one.probabilities) == pytest.approx(dict(other.probabilities), abs=1e-5)


def test_the_same_image_gets_the_same_answer_from_memory_as_from_its_file(model, images):
    path = photo(images)
    with Image.open(path) as image:
        pixels = np.asarray(image)
        tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
        answers = [model.predict(one) for one in (path, str(path), image, pixels, tensor)]
    assert [answer.label for answer in answers] == ["owl"] * 5
    assert len({tuple(answer.probabilities.items()) for answer in answers}) == 1
    assert answers[0].image == str(path)
    assert answers[2].image == "image 1"


def test_an_orientation_is_obeyed_in_memory_too(model, images, tmp_path):
    with Image.open(photo(images)) as image:
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as turned:
        assert model.predict(turned).probabilities == model.predict(tmp_path / "turned.png").probabilities


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_an_image_of_any_mode_becomes_rgb(model, images, mode):
    with Image.open(photo(images)) as image:
        converted = image.convert(mode)
    assert model.predict(converted).error is None
    assert converted.mode == mode


def test_several_images_get_a_list_in_their_order(model, images):
    owl, cat = photo(images, "owl"), photo(images, "cat")
    arrays = np.stack([np.asarray(Image.open(path)) for path in (owl, cat)])
    tensors = torch.from_numpy(arrays).permute(0, 3, 1, 2)
    for several in (
        [owl, cat],
        [Image.open(owl), str(cat)],
        arrays,
        tensors,
        [tensors],
        (arrays[0], tensors[1]),
    ):
        assert [answer.label for answer in model.predict(several, quiet=True)] == ["owl", "cat"]
    assert [answer.image for answer in model.predict([owl, arrays])] == [str(owl), "image 2", "image 3"]
    assert len(model.predict(images)) == 36
    assert same(model.predict([owl])[0], model.predict(owl))
    assert model.predict([]) == []


def test_probabilities_are_of_all_classes_or_the_most_probable(model, images):
    every, two = model.predict(photo(images)), model.predict(photo(images), top_k=2)
    assert sum(every.probabilities.values()) == pytest.approx(1, rel=1e-5)
    assert list(two.probabilities.items()) == list(every.probabilities.items())[:2]
    assert every.probability == max(every.probabilities.values())
    assert every.labels == (every.label,)
    with pytest.raises(finetune.ConfigError, match="top_k: expected a whole number of at least 1"):
        model.predict(photo(images), top_k=0)


def test_python_and_the_command_line_predict_the_same(model, small_run, images):
    answers = json.loads(run_finetune("predict", small_run, images / "cat", "--json", "--top-k", 3).stdout)
    for ours, theirs in zip(model.predict(images / "cat"), answers, strict=True):
        assert ours.image == theirs["image"]
        shares = {one["class"]: one["probability"] for one in theirs["predictions"]}
        assert dict(ours.probabilities) == pytest.approx(shares, abs=1e-6)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (np.zeros((8, 8, 3)), r"An array of float64 \(8, 8, 3\)"),
        (np.zeros((3, 8, 8), np.uint8), r"image 1: .*|An array of uint8 \(3, 8, 8\)"),
        (torch.zeros(3, 8, 8), r"A tensor of float32 \(3, 8, 8\)"),
        (torch.zeros(8, 8, 3, dtype=torch.uint8), r"A tensor of uint8 \(8, 8, 3\)"),
        (None, "A value of type NoneType"),
        ([3], "A value of type int"),
    ],
)
def test_what_is_no_image_is_refused_with_what_is(model, value, what):
    with pytest.raises(finetune.DataError, match=what):
        model.predict(value)


def test_unreadable_images_raise_or_are_reported(model, images, tmp_path):
    draw_images(tmp_path, each=1)
    (tmp_path / "cat" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    with pytest.raises(finetune.DataError, match=r"broken.png: .*\non_bad_image="):
        model.predict(tmp_path)
    answers = model.predict(tmp_path, on_bad_image="skip")
    assert [answer.error is None for answer in answers] == [False, True, True, True]
    assert (answers[0].label, answers[0].probability, answers[0].labels) == (None, None, ())
    with pytest.raises(finetune.DataError, match=r"nope.png: no such file"):
        model.predict(tmp_path / "nope.png")


def test_metadata_is_refused_by_a_model_without(model, images):
    with pytest.raises(finetune.ConfigError, match="was trained without metadata; leave it out"):
        model.predict(photo(images), metadata={"site": "north"})


def test_the_module_is_plain_torch_and_gives_the_same_answer(model, images):
    path = photo(images)
    assert isinstance(model.module, torch.nn.Module)
    assert not model.module.training
    pixels = model.preprocess(path)
    assert (pixels.shape, pixels.dtype) == ((3, 32, 32), torch.uint8)
    assert torch.equal(model.preprocess([path, path]), torch.stack([pixels, pixels]))
    with torch.inference_mode():
        logits = model.module(pixels[None].to(model.device))
    shares = (logits / model.temperature).softmax(1)[0]
    expected = model.predict(path).probabilities
    assert [expected[name] for name in model.classes] == pytest.approx(shares.tolist(), abs=1e-6)


def test_a_model_says_what_it_is(model, small_run):
    assert repr(model) == f"<finetune.Model shufflenet_v2_x0_5 from {small_run}: 3 classes (cat, dog, owl)>"
    assert (model.thresholds, model.metadata_columns, model.device.type) == (None, (), "cpu")


# Metadata, and several labels


@pytest.fixture(scope="module")
def with_site(images, tmp_path_factory) -> finetune.Model:
    """Return a model that was trained with a category and a number beside each image."""
    folder = tmp_path_factory.mktemp("site")
    rows = [
        f"{path},{path.parent.name},{('north', 'south')[n % 2]},{20 + n}.5"
        for n, path in enumerate(sorted(images.rglob("*.png")))
    ]
    (folder / "labels.csv").write_text("\n".join(["image,label,site,age", *rows]))
    settings = small_settings(folder / "labels.csv")
    settings["stages"] = [{"name": "frozen", "train": "head", "epochs": 1, "lr": 1e-1}]
    columns = {"data.columns.metadata": ["site", "age"]}
    return finetune.train(settings, overrides=columns, run_dir=folder / "run", quiet=True).model


def test_metadata_is_given_for_all_images_or_for_each(with_site, images, tmp_path):
    path = photo(images)
    assert with_site.metadata_columns == ("site", "age")
    north, south = ({"site": name, "age": 30.5} for name in ("north", "south"))
    one = with_site.predict(path, metadata=north)
    other = with_site.predict(path, metadata=south)
    assert one.probabilities != other.probabilities
    assert all(map(same, with_site.predict([path, path], metadata=[north, south]), [one, other]))
    assert same(with_site.predict([path, Image.open(path)], metadata=south)[1], other)
    (tmp_path / "sites.csv").write_text(f"image,site,age\n{path},south,30.5\n")
    assert same(with_site.predict(path, metadata=tmp_path / "sites.csv"), other)
    missing = {"site": None, "age": float("nan")}
    assert same(with_site.predict(path, metadata=missing), with_site.predict(path))


@pytest.mark.parametrize(
    ("metadata", "error", "message"),
    [
        ({"town": "x"}, "ConfigError", "metadata: the model takes no 'town'; its columns are 'site', 'age'"),
        ([{"site": "north"}] * 2, "ConfigError", "metadata: 2 mappings for 1 image; expected one for each"),
        ({"age": "old"}, "DataError", "age 'old' is no number"),
        ("sites.doc", "ConfigError", "metadata.* sites.doc: expected a table"),
    ],
)
def test_metadata_that_cannot_be_is_refused(with_site, images, metadata, error, message):
    with pytest.raises(getattr(finetune, error), match=message):
        with_site.predict(photo(images), metadata=metadata)


def test_a_model_of_several_labels_gives_those_that_reach_their_threshold(tmp_path):
    settings = small_settings(draw_several(tmp_path / "lights"))
    separator = {"data.label_separator": ";"}
    model = finetune.train(settings, overrides=separator, run_dir=tmp_path / "run", quiet=True).model
    assert set(model.thresholds) == set(model.classes) == {"red", "green", "blue"}
    for answer in model.predict([tmp_path / "lights" / f"{n:03}.png" for n in range(8)], top_k=1):
        assert next(iter(answer.probabilities)) == answer.label
        assert set(answer.labels) <= set(answer.probabilities)
        given = {name for name, share in answer.probabilities.items() if share >= model.thresholds[name]}
        assert set(answer.labels) == given


# Evaluation and rates


def test_evaluating_gives_the_scores_of_the_command(small_run, model, images):
    scores = json.loads(run_finetune("evaluate", small_run, "--json").stdout)
    del scores["confidence"]
    for ours in (finetune.evaluate(small_run, quiet=True), model.evaluate(quiet=True)):
        assert json.loads(json.dumps(ours.to_dict())) == scores
    assert model.evaluate(split="train", quiet=True).images == 30
    assert model.evaluate(images, quiet=True).images == 36


def test_what_is_no_run_is_refused(tmp_path):
    for use in (finetune.load, finetune.evaluate, finetune.Run):
        with pytest.raises(finetune.RunError, match="is not a finished run"):
            use(tmp_path)


def test_a_rate_is_found_and_its_curve_drawn(images):
    quick = {"lr_finder": {"steps": 20, "race_steps": 2}}
    found = finetune.lr_find(small_settings(images) | quick, quiet=True)
    assert found.stage == "frozen"
    assert len(found.curve.lrs) == len(found.curve.losses) == len(found.curve.smoothed())
    assert set(found.suggestions) == {"knee", "steepest", "minimum", "slide", "valley"}
    assert found.plot().size == (1000, 600)
    assert found._repr_png_().startswith(b"\x89PNG")
    assert repr(found).startswith("<finetune.LrFind stage frozen: ")


def test_a_rate_that_was_not_found_raises_where_it_is_used(images):
    flat = {"lr_finder": {"steps": 20, "start": 1e-12, "end": 1e-11, "pick": "valley"}}
    found = finetune.lr_find(small_settings(images) | flat, quiet=True)
    with pytest.raises(finetune.DivergenceError, match="No usable rate for stage frozen"):
        found.lr  # noqa: B018
    with pytest.raises(finetune.DivergenceError, match="No usable rate for stage frozen"):
        found.written  # noqa: B018
    assert "no usable rate" in repr(found)
    assert found.plot().size == (1000, 600)


# Types

STRANGER = """\
from pathlib import Path

import finetune
from finetune import Config, DataConfig, FinetuneError, StageConfig

config = Config(data=DataConfig(path="photos"), seed=1)
run: finetune.Run = finetune.train(config, stages__frozen__epochs=3, run_dir=Path("runs/a"))
loss: float = run.best.val_loss
model: finetune.Model = finetune.load(run, device="cpu")
label: str | None = model.predict("a.jpg").label
several: list[finetune.Prediction] = model.predict(["a.jpg", Path("b.jpg")])
rate: float = finetune.lr_find({"data": {"path": "photos"}}, stage="frozen").lr
share: float = finetune.evaluate(run, split="test").accuracy
reveal_type(model.predict("a.jpg"))
try:
    finetune.trian("photos")
except FinetuneError as error:
    model.predict(3)
    finetune.load(run, device="gpu")
    finetune.train("photos", resume="yes")
"""


@pytest.mark.slow
def test_a_type_checker_of_a_stranger_sees_the_types(tmp_path, monkeypatch):
    api = pytest.importorskip("mypy.api")
    (tmp_path / "stranger.py").write_text(STRANGER)
    monkeypatch.setenv("MYPYPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    cache = ROOT / ".mypy_cache" / "stranger"  # apart: other options would make mypy check the package anew
    out, _, _ = api.run(["--strict", "--follow-imports=silent", "--cache-dir", str(cache), "stranger.py"])
    lines = [line.removeprefix("stranger.py:") for line in out.splitlines()]
    assert any("finetune.api.prediction.Prediction" in line and "Any" in line for line in lines), out
    found = [(int(line.split(":")[0]), line[line.rindex("[") :]) for line in lines if " error: " in line]
    text = STRANGER.splitlines()
    assert [(text[number - 1].strip(), kind) for number, kind in found] == [
        ('finetune.trian("photos")', "[attr-defined]"),
        ("model.predict(3)", "[call-overload]"),
        ('finetune.load(run, device="gpu")', "[arg-type]"),
        ('finetune.train("photos", resume="yes")', "[arg-type]"),
    ]


def test_loading_a_run_that_is_not_done_warns(small_run, tmp_path):
    copy = shutil.copytree(small_run, tmp_path / "run")
    (copy / "status.json").write_text(json.dumps({"state": "stopped"}))
    with pytest.warns(UserWarning, match=r"is not done \(status: stopped\)"):
        finetune.load(copy)
