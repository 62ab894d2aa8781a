"""A model behind HTTP: answers as `predict`, and a reason for whatever is no picture or too much."""

import asyncio
import io
import json
import re
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from asgi import answer, as_json, ask, base64_of, form, running, same
from browser import Browser
from conftest import run_finetune
from PIL import Image

from finetune.commands.serve.batching import BatchQueue
from finetune.commands.serve.limits import ServeLimits
from finetune.model.heat_map import heat_maps
from finetune.runs.trained_model import load_trained

pytest.importorskip("fastapi", reason="needs the extra serve")

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "serve.py"


@pytest.fixture(scope="module")
def trained(small_run):
    return load_trained(small_run, torch.device("cpu"))


@pytest.fixture(scope="module")
def pictures(images):
    return [images / "cat" / "cat00.png", images / "owl" / "owl05.png"]


@pytest.fixture(scope="module")
def owl(pictures):
    return pictures[1].read_bytes()


@pytest.fixture(scope="module")
def predicted(small_run, pictures):
    """Return what `predict --json` says, with the names that a client sends."""
    done = run_finetune("predict", small_run, *pictures, "--json", "--unsure", "0.9")
    assert done.exit_code == 0, done.output
    return [{**one, "image": Path(one["image"]).name} for one in json.loads(done.stdout)]


def test_form_json_and_bytes_answer_as_predict(trained, pictures, predicted):
    files = [(path.name, path.read_bytes()) for path in pictures]
    objects = [{"name": name, "data": base64_of(content)} for name, content in files]
    whole = {"headers": {"content-type": "image/png"}, "parts": [files[1][1][:100], files[1][1][100:]]}
    by_form, by_json, by_bytes = answer(
        trained,
        form(*files, unsure="0.9"),
        as_json({"images": objects, "unsure": 0.9}),
        {**whole, "path": "/predict?unsure=0.9&top_k=1"},
    )
    assert [one.status for one in (by_form, by_json, by_bytes)] == [200, 200, 200]
    assert same(by_form.json, predicted)
    assert same(by_json.json, predicted)
    assert by_bytes.json[0]["image"] == "image 1"
    assert len(by_bytes.json[0]["predictions"]) == 1
    assert same(answer(trained, form(files[1]), unsure=0.9)[0].json, predicted[1:])


def test_one_bad_picture_among_good_ones_has_its_own_error(trained, owl):
    (found,) = answer(trained, form(("owl.png", owl), ("page.jpg", b"<html>hello</html>")))
    assert found.status == 200
    assert [one["error"] for one in found.json] == [None, "looks like HTML, 18 bytes"]
    assert found.json[1]["predictions"] == []


def bomb():
    content = io.BytesIO()
    Image.new("1", (8000, 8000)).save(content, "PNG")
    return content.getvalue()


def test_what_is_no_picture_is_400_with_the_reason(trained, owl):
    found = answer(
        trained,
        form(("a.png", b"")),
        form(("b.png", owl[: len(owl) // 2])),
        form(("../../etc/passwd", b"%PDF-1.7")),
        form(("bomb.png", bomb())),
        form(("d.png", owl), boundary="edge") | {"path": "/predict?max_pixels=1"},
    )
    assert [one.status for one in found] == [400] * 5
    assert found[0].error == "a.png: empty file"
    assert found[1].error == "b.png: truncated PNG"
    assert found[2].error.startswith("../../etc/passwd: looks like PDF")
    assert found[3].error == "bomb.png: 64 MP is over the limit (50 MP)"
    assert found[3].json["images"][0]["predictions"] == []
    assert "no setting 'max_pixels'" in found[4].error


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"images": [1' + b"0" * 5000 + b"]}", "not JSON"),
        ([], 'expected JSON {"images": [base64, …]}'),
        ({"images": []}, "no image"),
        ({"images": {"data": ""}}, "expected JSON"),
        ({"images": [7]}, "images[0]: expected base64"),
        ({"images": ["no base64!"]}, "images[0]: data is not base64"),
        ({"images": ["/etc/passwd"]}, "paths and addresses are not opened"),
        ({"images": ["http://example.com/a.png"]}, "paths and addresses are not opened"),
        ({"images": ["YQ=="], "metadata": [1]}, "metadata: expected an object"),
        (
            {"images": ["YQ=="], "metadata": {"site": "arm"}},
            "metadata 'site' is nothing that the model",
        ),
        ({"images": ["YQ=="], "top_k": 0}, "top_k: expected a whole number from 1"),
        ({"images": ["YQ=="], "top_k": 1.5}, "top_k: expected a whole number from 1"),
        ({"images": ["YQ=="], "top_k": True}, "top_k: expected a whole number from 1"),
        ({"images": ["YQ=="], "unsure": [1]}, "unsure: expected a number from 0 to 1"),
        ({"images": ["YQ=="], "unsure": float("nan")}, "unsure: expected a number from 0 to 1"),
        ({"images": ["YQ=="], "topk": 2}, "no setting 'topk'; did you mean 'top_k'?"),
        ({"images": [{"name": "\ud800", "data": "YQ=="}]}, "\\ud800: not an image"),
    ],
)
def test_json_that_asks_nothing_possible_is_400(trained, document, reason):
    (found,) = answer(trained, as_json(document))
    assert found.status == 400
    assert reason in found.error


def test_too_much_is_413(trained, owl):
    limits = ServeLimits(max_bytes=50_000, max_images=3)
    files = [(f"{number}.png", b"") for number in range(4)]
    small = {"content-type": "image/png"}
    many, many_json, long, declared = answer(
        trained,
        form(*files),
        as_json({"images": ["YQ=="] * 4}),
        {"headers": small, "parts": [b"x" * 40_000] * 5},
        {"headers": small | {"content-length": "9" * 30}, "parts": [owl]},
        limits=limits,
    )
    assert [one.status for one in (many, many_json, long, declared)] == [413] * 4
    assert many.error == "too many files. Maximum number of files is 3"
    assert many_json.error == "4 images; at most 3 may come at once"
    assert long.error == declared.error == "the request is larger than 50.0 kB; send fewer images at once"


def test_ten_thousand_files_are_refused_early(trained):
    (found,) = answer(trained, form(*((f"{number}.png", b"x") for number in range(10_000))))
    assert found.status == 413


def test_forms_that_are_none_are_400(trained, owl):
    whole = form(("owl.png", owl))
    found = answer(
        trained,
        {**whole, "headers": {"content-type": "multipart/form-data"}},
        {**whole, "parts": [whole["parts"][0][:200]], "ends": False},
        {**whole, "parts": [b"--nothing of the kind"]},
        form(("owl.png", owl), metadata="{"),
        form(top_k="2"),
    )
    assert [one.status for one in found] == [400] * 5
    assert found[0].error == "missing boundary in multipart"
    assert found[1].error == "the request ended before its body was complete"
    assert found[3].error.startswith("not JSON")
    assert found[4].error.startswith("no image: send some")


def test_other_types_paths_and_methods_are_refused_with_what_there_is(trained):
    text, nothing, elsewhere, get = answer(
        trained,
        {"headers": {"content-type": "text/plain"}, "parts": [b"hello"]},
        {},
        {"method": "GET", "path": "/predictions"},
        {"method": "GET"},
    )
    assert (text.status, nothing.status, elsewhere.status, get.status) == (415, 415, 404, 405)
    assert "expected multipart/form-data, application/json, or one image" in text.error
    assert "there are /predict, /model and /health" in elsewhere.error


def test_a_slow_client_is_408_and_holds_up_nobody(trained, owl):
    async def never():
        await asyncio.sleep(60)

    slow = {"headers": {"content-type": "image/png"}, "parts": [owl[:50], never]}

    async def go():
        async with running(trained, limits=ServeLimits(timeout=0.3)) as app:
            late = asyncio.create_task(ask(app, **slow))
            quick = await ask(app, **form(("owl.png", owl)))
            assert not late.done()
            return quick, await late

    quick, late = asyncio.run(go())
    assert (quick.status, late.status) == (200, 408)
    assert late.error == "the request took more than 0.3 s to arrive"
    assert late.headers["connection"] == "close"


def test_more_requests_than_are_taken_at_once_are_503(trained, owl):
    request = form(("owl.png", owl))
    found = answer(trained, *[request] * 5, limits=ServeLimits(max_requests=3))
    assert sorted(one.status for one in found) == [200, 200, 200, 503, 503]
    refused = next(one for one in found if one.status == 503)
    assert refused.error == "3 requests are being answered; try again in a second"
    assert refused.headers["retry-after"] == "1"


def test_health_is_told_however_much_there_is_to_do(trained, owl):
    *_, health = answer(
        trained,
        *[form(("owl.png", owl))] * 3,
        {"method": "GET", "path": "/health"},
        limits=ServeLimits(max_requests=1),
    )
    assert health.status == 200
    assert health.json["status"] == "ok"


@pytest.mark.parametrize(
    ("headers", "options", "status"),
    [
        ({"host": "evil.example"}, {}, 403),
        ({"host": "evil.example:8000"}, {}, 403),
        ({"host": ""}, {}, 403),
        ({"host": "[::1"}, {}, 403),
        ({"host": "127.0.0.1:9"}, {}, 200),
        ({"host": "[::1]:8000"}, {}, 200),
        ({"host": "LOCALHOST"}, {}, 200),
        ({"host": "cats.example"}, {"allowed_hosts": ("cats.example",)}, 200),
        ({"host": "cats.example"}, {"host": "0.0.0.0"}, 200),
        ({"host": "evil.example"}, {"host": "0.0.0.0", "allowed_hosts": ("cats.example",)}, 403),
        ({"origin": "http://localhost:8000"}, {}, 200),
        ({"origin": "http://evil.example"}, {}, 403),
        ({"origin": "http://localhost:9000"}, {}, 403),
        ({"origin": "null"}, {}, 403),
    ],
)
def test_only_pages_of_its_own_and_known_names_reach_it(trained, owl, headers, options, status):
    request = form(("owl.png", owl))
    (found,) = answer(trained, {**request, "headers": {**request["headers"], **headers}}, **options)
    assert found.status == status
    assert "access-control-allow-origin" not in found.headers


def test_the_model_and_the_api_are_described(trained):
    model, api = answer(
        trained, {"method": "GET", "path": "/model"}, {"method": "GET", "path": "/openapi.json"}, unsure=0.8
    )
    assert model.json["classes"] == ["cat", "dog", "owl"]
    assert model.json["unsure"] == 0.8
    assert model.json["limits"]["pixels"] == 50_000_000
    operation = api.json["paths"]["/predict"]["post"]
    assert set(operation["requestBody"]["content"]) == {"multipart/form-data", "application/json", "image/*"}
    assert {"200", "400", "403", "408", "413", "415", "503"} <= set(operation["responses"])


def test_the_page_needs_nothing_from_elsewhere(trained):
    page, docs = answer(trained, {"method": "GET", "path": "/"}, {"method": "GET", "path": "/docs"})
    text = page.content.decode()
    assert not re.search(r"src=|href=(?!\"data:)|https?://|@import|innerHTML", text)
    assert "script-src 'sha256-" in page.headers["content-security-policy"]
    assert docs.status == 404  # FastAPI's own loads scripts from elsewhere


def test_nothing_is_written_to_the_disk(trained, owl, monkeypatch):
    monkeypatch.setattr("tempfile._mkstemp_inner", None)
    monkeypatch.setattr("tempfile.TemporaryFile", None)
    big = io.BytesIO()
    Image.effect_noise((1600, 1600), 90).save(big, "PNG")
    assert len(big.getvalue()) > 2_000_000
    (found,) = answer(trained, form(("big.png", big.getvalue()), ("owl.png", owl)))
    assert found.status == 200


def test_a_failure_of_the_model_is_500_and_the_next_request_is_answered(trained, owl, monkeypatch):
    request, answers = form(("owl.png", owl)), []

    async def go():
        async with running(trained) as app:
            with monkeypatch.context() as patch:
                patch.setattr("finetune.commands.serve.answering.answer_images", None)
                with pytest.raises(TypeError):  # the server's log has the traceback
                    await ask(app, **request)
            answers.append(await ask(app, **request))

    asyncio.run(go())
    assert answers[0].status == 200


def test_images_that_wait_at_the_same_time_share_a_batch():
    sizes, entered, go_on = [], threading.Event(), threading.Event()

    def work(batch):
        sizes.append(len(batch))
        entered.set()
        go_on.wait(10)
        return [2 * item for item in batch]

    async def go():
        queue = BatchQueue(work, size=4)
        running_queue = asyncio.create_task(queue.run())
        first = asyncio.create_task(queue.ask(0))
        await asyncio.to_thread(entered.wait, 10)
        rest = [asyncio.create_task(queue.ask(number)) for number in range(1, 9)]
        await asyncio.sleep(0)
        assert queue.waiting == 8
        rest[2].cancel()  # its client has left
        go_on.set()
        results = await asyncio.gather(first, *rest, return_exceptions=True)
        running_queue.cancel()
        return results

    results = asyncio.run(go())
    assert [r for r in results if not isinstance(r, asyncio.CancelledError)] == [0, 2, 4, 8, 10, 12, 14, 16]
    assert sizes == [1, 4, 2, 1]  # powers of two, at most 4


def test_without_the_extra_one_line_says_how_to_install_it(small_run, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = run_finetune("serve", small_run)
    assert result.exit_code == 2
    assert "serve needs fastapi, uvicorn, python-multipart.\nInstall it: pip install" in result.stderr


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--host", "203.0.113.1"), 7, "cannot listen on 203.0.113.1, port 8000"),
        (("--max-bytes", "much"), 2, "--max-bytes: expected a size"),
        (("--max-bytes", "0"), 2, "no picture is as small"),
        (("--port", "70000"), 2, "--port"),
    ],
)
def test_what_cannot_be_served_is_said_before_it_starts(small_run, options, code, words, monkeypatch):
    monkeypatch.setattr("finetune.commands.serve.serve.load_trained", lambda *_: pytest.fail("loaded"))
    result = run_finetune("serve", small_run, *options)
    assert result.exit_code == code
    assert words in result.stderr


@pytest.mark.parametrize("tta", [False, True])
def test_what_speaks_for_the_answer_is_told_where_it_is_asked_for(trained, owl, images, tta):
    wide = Image.open(images / "owl" / "owl05.png").resize((120, 40))
    content = io.BytesIO()
    wide.save(content, "PNG")
    request = form(
        ("wide.png", content.getvalue()), ("page.png", b"<html>"), ("owl.png", owl), explain="true"
    )
    explained, plain = answer(trained, request, form(("owl.png", owl)), tta=tta)
    assert "explanation" not in plain.json[0]
    first, unread, last = (one["explanation"] for one in explained.json)
    assert unread is None
    assert first["class"] == explained.json[0]["predictions"][0]["class"]
    # Of the evaluation's resize and crop at 32 pixels a third of the width is seen, in the middle.
    left, top, right, bottom = first["box"]
    assert right - left == pytest.approx((bottom - top) / 3)
    assert left + right == pytest.approx(1) == pytest.approx(top + bottom)
    pixels = trained.transform(Image.open(io.BytesIO(owl)).convert("RGB"))
    target = torch.tensor([trained.class_names.index(last["class"])])
    expected = heat_maps(trained.model, pixels[None], target).heat[0]
    assert torch.tensor(last["heat"]).sub(expected).abs().max() < 2e-3
    if not tta:
        assert same(plain.json, [{k: v for k, v in explained.json[2].items() if k != "explanation"}])


@pytest.mark.parametrize("value", ["maybe", "2", "yes please"])
def test_explain_is_true_or_false(trained, owl, value):
    (found,) = answer(trained, form(("owl.png", owl), explain=value))
    assert (found.status, found.error) == (400, "explain: expected true or false")


@pytest.mark.slow
def test_no_request_is_lost_under_load_and_memory_stays(small_run):
    command = [sys.executable, BENCHMARK, small_run, "--requests", "200", "--at-once", "16"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lost      0" in done.stdout
    assert "SIGTERM   16 of 16 answered, exit code 0" in done.stdout
    before, after = map(int, re.search(r"memory +(\d+) MB .*, (\d+) MB", done.stdout).groups())
    assert after < 1.1 * before
    assert done.stderr == ""  # a client cannot fill the log either


@contextmanager
def served(run, *options):
    """Serve a run in a process of its own, and give its address."""
    command = [sys.executable, "-m", "finetune", "serve", run, "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        lines = iter(process.stdout.readline, "")
        try:
            yield next(found[0] for line in lines if (found := re.search(r"http://[^ ]*/$", line.strip())))
        finally:
            process.terminate()
        said, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "stopped; all requests were answered" in said
    assert errors == ""


DROP = """
const list = new DataTransfer();
list.items.add(new File(["<html>no picture</html>"], "<img src=x onerror=alert(1)>.jpg"));
dispatchEvent(new DragEvent("drop", { dataTransfer: list }));
"""


@pytest.mark.slow
def test_the_page_answers_pictures_in_a_browser(small_run, pictures, predicted, tmp_path):
    with served(small_run) as address, Browser(tmp_path) as browser:
        browser.open(address, width=900, height=800)
        browser.evaluate("document.getElementById('unsure').value = 0.9")
        browser.evaluate("document.getElementById('explain').click()")
        browser.choose_files("#files", pictures)
        browser.wait_for("document.getElementById('count').textContent === '2 of 2 answered'")
        figures = browser.evaluate(
            "Object.fromEntries([...document.querySelectorAll('figure')].map(f => [f.querySelector('.name')"
            ".textContent, [f.querySelector('.row').innerText, [...f.querySelectorAll('.mark')]"
            ".map(m => m.textContent), f.querySelector('img').naturalWidth]]))"
        )
        for expected in predicted:
            best = expected["predictions"][0]
            shown = f"{best['class']}\n{100 * best['probability']:.1f}%"
            marks = [name for name in ("unsure", "unlike") if expected[name]]
            assert figures[expected["image"]] == [shown, marks, 48]
        assert browser.complaints == []
        assert browser.evaluate("document.querySelectorAll('canvas').length") == 2
        over = "(i => (c => [c.left, c.right, c.top, c.bottom].map(Math.round))(i.getBoundingClientRect()))"
        spots = [browser.evaluate(f"{over}(document.querySelector('{kind}'))") for kind in ("img", "canvas")]
        (left, right, *_), (begins, ends, *_) = spots
        assert left <= begins < ends <= right
        browser.evaluate(DROP)
        browser.wait_for("document.querySelector('.wrong')")
        assert "looks like HTML" in browser.evaluate("document.querySelector('.wrong').textContent")
        assert browser.evaluate("document.querySelectorAll('img').length") == 2  # its name is no element
        browser.screenshot(tmp_path / "wide.png")
        browser.open(address, width=360, height=740, dark=True)
        browser.choose_files("#files", pictures)
        browser.wait_for("document.querySelectorAll('.row').length === 6")
        assert browser.evaluate("document.documentElement.scrollWidth") <= 360
        browser.screenshot(tmp_path / "narrow.png")
        assert [text for text in browser.complaints if "400" not in text] == []
