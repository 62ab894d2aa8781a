"""Exported files: they answer as `predict` does, say what they are, and are not left where they do not."""

import json
import queue
import re
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import run_finetune, write_small_config
from PIL import Image
from several import draw_several
from test_recipe import SEPARATED
from torch.torch_version import TorchVersion

import finetune
from finetune.commands.export import export as story
from finetune.commands.export import pictures
from finetune.model.onnx_export import OLDEST
from finetune.runs.trained_model import load_trained

exports = pytest.mark.skipif(
    TorchVersion(torch.__version__) < OLDEST, reason="this release of torch cannot write such programs"
)
DOCS = Path(__file__).parents[1] / "docs" / "export.md"


def export(run, *arguments):
    result = run_finetune("export", run, "--json", *arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def predicted(run, *images):
    """Return the probability of each class of images, by `predict`."""
    result = run_finetune("predict", run, *images, "--json", "--top-k", 99)
    assert result.exit_code == 0, result.output
    answers = json.loads(result.stdout)
    return [{one["class"]: one["probability"] for one in answer["predictions"]} for answer in answers]


def pixels_of(path):
    return np.asarray(Image.open(path).convert("RGB"))[None]


@pytest.fixture(scope="module")
def onnx_file(small_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    return folder / "small.onnx", export(small_run, "-o", folder / "small.onnx")


@exports
@pytest.mark.slow
def test_the_file_says_how_it_compares(onnx_file):
    path, document = onnx_file
    assert document["file"] == str(path)
    assert document["bytes"] == path.stat().st_size
    assert document["largest_difference"] < 1e-4
    assert (document["other_classes"], document["pictures"]) == (0, 3 * 6)  # its six validation images


@exports
@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 40, 48), (2, 77, 31), (7, 32, 200), (3, 300, 200)])
def test_images_of_any_size_in_batches_of_any_size(onnx_file, small_run, shape):
    session = onnxruntime.InferenceSession(onnx_file[0])
    (entry,) = session.get_inputs()
    assert (entry.name, entry.type, entry.shape) == ("images", "tensor(uint8)", ["N", "H", "W", 3])
    images = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    (found,) = session.run(["probabilities"], {"images": images})
    trained = story.in_float32(load_trained(small_run, torch.device("cpu")))
    batch = torch.stack([trained.transform(Image.fromarray(one)) for one in images])
    with torch.inference_mode():
        expected = trained.probabilities(trained.answer(batch)[0]).numpy()
    assert found == pytest.approx(expected, abs=1e-4)


@exports
@pytest.mark.slow
def test_the_client_of_the_documentation_answers_as_predict_without_torch(onnx_file, small_run, tmp_path):
    (client,) = re.findall(r"```python\n(import json, sys.*?)```", DOCS.read_text(), flags=re.DOTALL)
    assert "torch" not in client
    assert len(client.strip().splitlines()) <= 20
    random = np.random.default_rng(1)
    noise = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    photo = Image.fromarray(noise).resize((640, 480), Image.Resampling.BICUBIC)
    turned = Image.Exif()
    turned[0x0112] = 6
    photo.save(tmp_path / "big.jpg", quality=90)  # drafted: the network sees 32 pixels
    photo.save(tmp_path / "turned.jpg", exif=turned)
    clear = photo.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    clear.save(tmp_path / "clear.png")
    files = [tmp_path / name for name in ("big.jpg", "turned.jpg", "clear.png")]
    (tmp_path / "client.py").write_text(client)
    command = [
        sys.executable,
        "-X",
        "importtime",
        str(tmp_path / "client.py"),
        str(onnx_file[0]),
        *map(str, files),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not re.search(r"\| +(torch|finetune)$", done.stderr, flags=re.MULTILINE)
    for line, probabilities in zip(done.stdout.splitlines(), predicted(small_run, *files), strict=True):
        _, name, probability = line.rsplit(" ", 2)
        assert name == max(probabilities, key=probabilities.get)
        assert float(probability) == pytest.approx(probabilities[name], abs=2e-4)


@pytest.fixture
def onnxruntime_web(tmp_path):
    """Install what runs ONNX files in a browser; skip where there is no browser or no registry."""
    if shutil.which("chromium") is None or shutil.which("npm") is None:
        pytest.skip("needs chromium and npm")
    command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "onnxruntime-web"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        pytest.skip(f"npm cannot install onnxruntime-web: {done.stderr[:200]}")
    return tmp_path


@exports
@pytest.mark.slow
def test_the_page_of_the_documentation_answers_in_a_browser(onnxruntime_web, onnx_file, small_run, images):
    (page,) = re.findall(r"```html\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    probe = """
const answer = await classify(await (await fetch("picture.png")).blob());
await fetch("answer", { method: "POST", body: JSON.stringify(answer) });
</script>"""
    (onnxruntime_web / "index.html").write_text(page.replace("</script>", probe))
    shutil.copy(onnx_file[0], onnxruntime_web / "model.onnx")
    path = images / "owl" / "owl05.png"
    shutil.copy(path, onnxruntime_web / "picture.png")
    AnswerTaker.answers = queue.Queue()
    handler = partial(AnswerTaker, directory=str(onnxruntime_web))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
    command.append(f"--user-data-dir={onnxruntime_web / 'profile'}")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command.append(f"http://127.0.0.1:{server.server_port}/index.html")
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            answer = dict(AnswerTaker.answers.get(timeout=240))
        finally:
            browser.kill()
            browser.wait()
            server.shutdown()
    assert answer == pytest.approx(predicted(small_run, path)[0], abs=1e-4)


class AnswerTaker(SimpleHTTPRequestHandler):
    """Serves a folder, and takes what a page of it answers."""

    answers: queue.Queue

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answers.put(json.loads(body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


@exports
@pytest.mark.slow
def test_the_file_says_what_it_is(onnx_file, small_run):
    about = onnxruntime.InferenceSession(onnx_file[0]).get_modelmeta().custom_metadata_map
    assert json.loads(about["class_names"]) == ["cat", "dog", "owl"]
    assert json.loads(about["thresholds"]) is None
    assert json.loads(about["metadata"]) == []
    assert (
        json.loads(about["decode"])["draft"]
        == load_trained(small_run, torch.device("cpu")).transform.shrink_to
    )
    assert "finetune_version" in about


@exports
@pytest.mark.slow
def test_a_card_lies_beside_it(onnx_file, small_run):
    card = (onnx_file[0].parent / "model_card.md").read_text()
    report = json.loads((small_run / "report.json").read_text())
    for part in (
        "3 classes: cat, dog, owl",
        f"| val | {report['val']['accuracy']:.2%} |",
        "shufflenet_v2_x0_5",
        "probabilities differ by at most",
        (small_run / "config.yaml").read_text().rstrip(),
    ):
        assert part in card


@exports
@pytest.mark.slow
def test_a_program_of_torchs_own_answers_the_same(small_run, images, tmp_path):
    document = export(small_run, "--format", "torch", "-o", tmp_path / "small.pt2")
    assert document["largest_difference"] < 1e-6
    extra = {"class_names": ""}
    program = torch.export.load(tmp_path / "small.pt2", extra_files=extra).module()
    assert json.loads(extra["class_names"]) == ["cat", "dog", "owl"]
    path = images / "cat" / "cat00.png"
    found = program(torch.from_numpy(pixels_of(path).copy()))[0]
    expected = predicted(small_run, path)[0]
    assert found.tolist() == pytest.approx([expected[name] for name in ("cat", "dog", "owl")], abs=1e-6)


@pytest.fixture(scope="module")
def timm_run(images, tmp_path_factory):
    pytest.importorskip("timm")
    folder = tmp_path_factory.mktemp("timm")
    config = write_small_config(folder, images)
    keys = ("model.arch=timm:test_efficientnet", "model.weights=none", "stages.unfrozen.epochs=1")
    result = run_finetune("train", config, *keys, "--run-dir", folder / "run")
    assert result.exit_code == 0, result.output
    return folder / "run"


def test_timm_takes_the_state_dict_by_the_lines_of_the_card(timm_run, images, tmp_path):
    export(timm_run, "--format", "timm", "-o", tmp_path / "net.safetensors")
    (use,) = re.findall(r"```python\n(.*?)```", (tmp_path / "model_card.md").read_text(), flags=re.DOTALL)
    space = {}
    exec(use.replace('"net.safetensors"', repr(str(tmp_path / "net.safetensors"))), space)
    trained = story.in_float32(load_trained(timm_run, torch.device("cpu")))
    path = images / "dog" / "dog03.png"
    batch = trained.transform(Image.open(path).convert("RGB"))[None]
    with torch.inference_mode():
        logits = space["model"].eval()(trained.model.normalised(batch)) / trained.temperature
    expected = predicted(timm_run, path)[0]
    assert logits.softmax(1)[0].tolist() == pytest.approx(
        [expected[name] for name in trained.class_names], abs=1e-5
    )


def test_python_exports_as_the_command_does(timm_run, tmp_path):
    path = finetune.load(timm_run).export(tmp_path / "net.safetensors", format="timm")
    assert path == tmp_path / "net.safetensors"
    assert path.stat().st_size > 1000
    with pytest.raises(finetune.ConfigError, match="precision"):
        finetune.load(timm_run).export(format="timm", precision="int8")


def test_the_card_has_every_file_of_the_model_that_lies_beside_it(timm_run, tmp_path):
    for name in ("a", "b", "b"):
        export(timm_run, "--format", "timm", "-o", tmp_path / f"{name}.safetensors")
    card = (tmp_path / "model_card.md").read_text()
    assert re.findall(r"^### `(.*)`$", card, flags=re.MULTILINE) == ["a.safetensors", "b.safetensors"]
    assert [card.count(f'load_file("{name}.safetensors")') for name in "ab"] == [1, 1]
    (tmp_path / "a.safetensors").unlink()
    export(timm_run, "--format", "timm", "-o", tmp_path / "c.safetensors")
    card = (tmp_path / "model_card.md").read_text()
    assert re.findall(r"^### `(.*)`$", card, flags=re.MULTILINE) == ["b.safetensors", "c.safetensors"]


def test_the_card_of_another_model_stays(timm_run, tmp_path):
    (tmp_path / "model_card.md").write_text("# mine\n")
    answer = export(timm_run, "--format", "timm", "-o", tmp_path / "a.safetensors")
    assert answer["card"] == str(tmp_path / "a_model_card.md")
    assert (tmp_path / "model_card.md").read_text() == "# mine\n"


@pytest.fixture(scope="module")
def several_run(tmp_path_factory):
    """Return a run whose images may have several classes, and have metadata."""
    folder = tmp_path_factory.mktemp("several")
    table = draw_several(folder / "photos")
    lines = table.read_text().splitlines()
    rows = [f"{line},{'abc'[n % 3]},{n / 7 if n % 5 else ''}" for n, line in enumerate(lines[1:])]
    table.write_text("\n".join([f"{lines[0]},camera,age", *rows]) + "\n")
    config = write_small_config(folder, table)
    keys = (SEPARATED, "data.columns.metadata={camera: category, age: number}")
    result = run_finetune("train", config, *keys, "--run-dir", folder / "run")
    assert result.exit_code == 0, result.output
    return folder / "run"


@exports
@pytest.mark.slow
def test_metadata_and_thresholds_are_in_the_program(several_run, tmp_path):
    document = export(several_run, "--format", "torch", "-o", tmp_path / "several.pt2")
    assert (document["other_classes"], document["largest_difference"] < 1e-6) == (0, True)


@exports
@pytest.mark.slow
def test_metadata_are_inputs_of_the_onnx_file(several_run, tmp_path):
    document = export(several_run, "-o", tmp_path / "several.onnx", "--features")
    assert document["largest_difference"] < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "several.onnx")
    kinds = {one.name: one.type for one in session.get_inputs()}
    assert kinds == {
        "images": "tensor(uint8)",
        "metadata.camera": "tensor(int64)",
        "metadata.age": "tensor(float)",
    }
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["metadata"])[0]["categories"] == ["a", "b", "c"]
    assert len(json.loads(about["thresholds"])) == 3
    features = session.get_outputs()[1]
    assert (features.name, features.shape[0]) == ("features", "N")


@exports
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_smaller_files_are_smaller_and_nearly_as_good(small_run, onnx_file, tmp_path, precision):
    """Of six validation images one is 17 points, and a network of 32 pixels bears int8 badly."""
    arguments = ("--precision", precision, "--most-loss", 34)
    document = export(small_run, "-o", tmp_path / "small.onnx", *arguments)
    assert document["bytes"] < 0.7 * onnx_file[1]["bytes"]
    if precision == "int8":
        assert document["accuracy"]["float32"] == 1.0
        assert document["accuracy"]["int8"] >= 0.6


# What is refused


def test_a_file_that_answers_otherwise_is_not_left(timm_run, tmp_path, monkeypatch):
    monkeypatch.setitem(story.LARGEST, "float32", -1.0)
    result = run_finetune("export", timm_run, "--format", "timm", "-o", tmp_path / "net.safetensors")
    assert result.exit_code == 7
    assert "the file answers otherwise than the model" in result.stderr
    assert list(tmp_path.iterdir()) == []


@exports
@pytest.mark.slow
def test_int8_that_loses_too_much_is_not_left(small_run, tmp_path, monkeypatch):
    def ruined(source, target, examples):
        target.write_bytes(source.read_bytes())

    accuracies = iter([0.9, 0.5])
    monkeypatch.setattr(story, "write_onnx", lambda program, path, **_: path.write_bytes(b"x"))
    monkeypatch.setattr(story, "quantize_onnx", ruined)
    monkeypatch.setattr(story, "OnnxModel", lambda path: type("Model", (), {"probabilities": None}))
    monkeypatch.setattr(story, "_accuracy", lambda *_: next(accuracies))
    result = run_finetune("export", small_run, "--precision", "int8", "-o", tmp_path / "small.onnx")
    assert result.exit_code == 7
    assert "int8 has 50.00% of the validation images right, float32 90.00%" in result.stderr
    assert "--most-loss 40 would accept it" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--format", "timm"), 2, "shufflenet_v2_x0_5 is a network of torchvision's"),
        (("--format", "torch", "--precision", "int8"), 2, "--precision is for --format onnx"),
        (("--format", "timm", "--features"), 2, "--features is for --format onnx"),
        (("--format", "torch", "-o", "nowhere/small.pt2"), 2, "nowhere"),
    ],
)
def test_what_cannot_be_is_said_at_once(small_run, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    result = run_finetune("export", small_run, *arguments)
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) <= 2


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_an_old_torch_is_refused(small_run, monkeypatch, kind):
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    result = run_finetune("export", small_run, "--format", kind)
    assert result.exit_code == 2
    assert f"--format {kind} needs PyTorch 2.11 or newer; this is 2.9.1" in result.stderr


@exports
def test_a_file_that_onnx_finds_wrong_is_not_left_behind(small_run, tmp_path, monkeypatch):
    """What the exporter wrote of timm's gemma4_vit_167m had its nodes in no order."""
    import onnx

    def refuse(_):
        raise onnx.checker.ValidationError("Nodes in a graph must be topologically sorted\n\nnode 5093")

    monkeypatch.setattr("finetune.model.onnx_export._exported", lambda *_: onnx.ModelProto())
    monkeypatch.setattr(onnx.checker, "check_model", refuse)
    result = run_finetune("export", small_run, "-o", tmp_path / "small.onnx")
    assert result.exit_code == 7
    assert "as ONNX: Nodes in a graph must be topologically sorted\n" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 2
    assert not list(tmp_path.iterdir())


@exports
def test_a_network_that_no_file_can_hold_is_refused_before_the_work(small_run, tmp_path, monkeypatch):
    """Protobuf ends at 2 GiB; of torchvision's networks regnet_y_128gf has more."""
    monkeypatch.setattr("finetune.model.onnx_export.LARGEST", 10**6)
    result = run_finetune("export", small_run, "-o", tmp_path / "small.onnx")
    assert result.exit_code == 7
    assert "an ONNX file holds at most 0.0 GB; this network has 0.0" in result.stderr
    assert not list(tmp_path.iterdir())


@exports
def test_a_network_that_torch_cannot_write_is_refused_in_two_lines(small_run, tmp_path, monkeypatch):
    def fail(*_, **__):
        try:
            raise ValueError("Cannot view a tensor with shape (1, 2)\n\nWhile executing %view_4")
        except ValueError as cause:
            raise torch.onnx.OnnxExporterError("Failed to decompose\nCreate an error report") from cause

    monkeypatch.setattr(torch.onnx, "export", fail)
    result = run_finetune("export", small_run, "-o", tmp_path / "small.onnx")
    assert result.exit_code == 7
    assert "cannot write this network as ONNX: Cannot view a tensor with shape (1, 2)\n" in result.stderr
    assert "--format torch" in result.stderr
    assert list(tmp_path.iterdir()) == []


@exports
def test_what_is_not_installed_is_named_with_how_to_install_it(small_run, monkeypatch):
    found = story.require_onnx.__globals__["importlib"].util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "onnxscript" else found(name)
    )
    result = run_finetune("export", small_run)
    assert result.exit_code == 2
    assert "needs onnxscript.\nInstall it: pip install 'finetune-vision[onnx]'" in result.stderr


def test_without_the_runs_images_drawn_ones_are_compared(timm_run, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "run_samples", lambda trained: (None, ()))
    document = export(timm_run, "--format", "timm", "-o", tmp_path / "net.safetensors")
    assert document["pictures"] == 3
