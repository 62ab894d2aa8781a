"""Damaged run directories by the hundred: the right answer, or an error that names the file."""

import json
import os
import random
import shutil
import time

import pytest
from conftest import run_finetune, some_quick, write_small_config

from finetune.runs.digests import COVERED, write_covered

NASTY = (
    *(None, True, 0, -1, 1, 0.5, 1e308, float("nan"), float("inf"), 2**70, "", "x", "NaN", "\0", "\n", "é"),
    *([], {}, [None], {"": None}, [[]], "done", "running", "../x", "/", [0], ["x"], {"x": 1}, "x" * 300),
)


def parts(value, path=()):
    """Return the place of every value in a JSON document, the whole first."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from parts(inner, (*path, key))


def spoil_json(text, chance):
    """Change one value of a JSON document, take it away, or swap two."""
    document = json.loads(text)
    path = chance.choice(list(parts(document)))
    if not path:
        return json.dumps(chance.choice(NASTY))
    node = document
    for key in path[:-1]:
        node = node[key]
    match chance.randrange(4):
        case 0:
            del node[path[-1]]
        case 1 if isinstance(node, list) and len(node) > 1:
            other = chance.randrange(len(node))
            node[path[-1]], node[other] = node[other], node[path[-1]]
        case 1 if isinstance(node, dict):
            node[f"{path[-1]}x"] = node.pop(path[-1])
        case _:
            node[path[-1]] = chance.choice(NASTY)
    return json.dumps(document)


def spoil_lines(text, chance):
    """Change a cell of a table, or take away, repeat or swap its lines."""
    lines = text.split("\n")
    number = chance.randrange(len(lines))
    match chance.randrange(4):
        case 0:
            del lines[number]
        case 1:
            lines.insert(number, chance.choice(lines))
        case 2:
            cells = lines[number].split(",")
            cells[chance.randrange(len(cells))] = str(chance.choice(NASTY))
            lines[number] = ",".join(cells)
        case _:
            lines[number] = chance.choice((",", '"', "[" * 100_000, "x,y,z", "{}"))
    return "\n".join(lines)


def spoil_bytes(content, chance):
    """Cut, overwrite or flip some bytes, or put something else in the place of all."""
    data = bytearray(content)
    start = chance.randrange(len(data)) if data else 0
    match chance.randrange(5):
        case 0:
            del data[start:]
        case 1:
            data[start : start + 2_000] = chance.randbytes(min(2_000, len(data) - start))
        case 2 if data:
            data[start] ^= 1 << chance.randrange(8)
        case 3:
            data[:] = chance.choice((b"", b"[" * 100_000, b"null", b"[]", b"1", b"{}", b"\xff\xfe", b"nan"))
        case _:
            data[start:start] = chance.randbytes(5)
    return bytes(data)


def spoiled(path, chance):
    """Return another content for a file of a run."""
    content = path.read_bytes()
    if chance.random() < 0.3 or not content:
        return spoil_bytes(content, chance)
    text = content.decode("utf-8", "surrogateescape")
    if path.suffix == ".json":
        return spoil_json(text, chance).encode("utf-8", "surrogatepass")
    if path.suffix in (".csv", ".jsonl", ".yaml"):
        return spoil_lines(text, chance).encode("utf-8", "surrogateescape")
    return spoil_bytes(content, chance)


def copy(run, to):
    """Copy a run by links, which cost nothing; a file that is changed must be replaced."""
    shutil.copytree(run, to, copy_function=os.link)
    (to / ".lock").unlink(missing_ok=True)
    return to


def damage(run, chance, *, knows_digests):
    """Damage one file of a run, with its digest if that is known; return what was done."""
    files = sorted(path for path in run.rglob("*") if path.is_file() and path.suffix not in (".html", ".png"))
    path = chance.choice(files)
    if chance.random() < 0.1:
        path.unlink()
        return f"{path.name} removed"
    content = spoiled(path, chance)
    path.unlink()
    if knows_digests and path.name in COVERED:
        try:
            write_covered(run, {path.name: content})
        except Exception as error:
            raise AssertionError(path) from error
    else:
        path.write_bytes(content)
    return f"{path.name}: {content[:200]!r}"


def answer(about, *arguments):
    """Return what a command prints, or None where it fails as documented."""
    began = time.process_time()  # not of the clock: a machine may stand still for a while
    result = run_finetune(*arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), about
    assert time.process_time() - began < 60, about
    if result.exit_code == 0:
        return result.stdout
    assert result.exit_code in (2, 3, 5, 7, 8), (about, result.output)
    assert "error: " in result.stderr, about
    assert len(result.stderr) < 5_000, about
    return None


@pytest.fixture(scope="module")
def runs(images, tmp_path_factory):
    """Return the config of a run, a finished run, and one that was killed before its last epoch."""
    folder = tmp_path_factory.mktemp("runs")
    config = write_small_config(folder, images)
    options = ("checkpoint.every=1", "checkpoint.keep=9")
    assert run_finetune("train", config, *options, "--run-dir", folder / "done").exit_code == 0
    killed = shutil.copytree(folder / "done", folder / "killed")
    for name in ("report.json", "report.html"):
        (killed / name).unlink()
    kept = sorted((killed / "checkpoints").iterdir())[:3]
    for path in sorted((killed / "checkpoints").iterdir()):
        if path not in kept:
            path.unlink()
    status = json.loads((killed / "status.json").read_text())
    status |= {"state": "running", "last_checkpoint": kept[-1].stem}
    (killed / "status.json").write_text(json.dumps(status))
    return config, folder / "done", killed


def commands(config, run, killed, images):
    """Return the commands that read a run, by what they are called in messages."""
    image = images / "cat" / "cat00.png"
    return {
        "predict": ("predict", run, image, "--json"),
        "evaluate": ("evaluate", run, "--json"),
        "resume a finished run": ("train", run, "--resume", "--json"),
        "take its weights": ("groups", config, f"model.weights={run}", "--json"),
        "list it": ("runs", run, "--json"),
        "compare it": ("compare", run, run, "--json"),
        "export it": ("export", run, "--format", "timm", "--output", run / "file.safetensors", "--json"),
        "resume": ("train", killed, "--resume", "--json"),
    }


@pytest.mark.parametrize("knows_digests", some_quick([False, True], True))
@pytest.mark.fuzz
@pytest.mark.parametrize("many", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_a_damaged_run_gives_the_right_answer_or_an_error(
    runs, images, tmp_path, many, knows_digests, short_waits, monkeypatch
):
    seed = int(os.environ.get("FUZZ_SEED", random.SystemRandom().randrange(10**9) if many > 100 else many))
    print(f"FUZZ_SEED={seed}")
    chance = random.Random(seed)
    config, done, killed = runs
    names = ["predict", "evaluate", "resume a finished run", "take its weights"]
    right = {name: answer(name, *commands(config, done, killed, images)[name]) for name in names}
    refused = 0
    for number in range(many):
        folder = tmp_path / f"{number}"
        name = chance.choice([*names, "list it", "compare it", "export it", "resume"])
        whole = killed if name == "resume" else done
        run = copy(whole, folder)
        what = damage(run, chance, knows_digests=knows_digests)
        about = (f"FUZZ_SEED={seed}", number, name, what)
        got = answer(about, *commands(config, run, run, images)[name])
        refused += got is None
        if got is not None and name in ("predict", "evaluate") and not knows_digests:
            expected = right[name].replace(str(done), str(run))
            if what == "known.safetensors removed":  # as in a copy of the model alone: nothing is known
                expected = expected.replace('"unlike": false', '"unlike": null')
            assert got == expected, about
        shutil.rmtree(folder)
    assert refused > many // 20
