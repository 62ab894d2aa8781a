"""Paths that no file system has, wherever one can be given: an error of a line or two, never a traceback."""

import pytest
from conftest import run_finetune, write_small_config

# Longer than any name, longer than any path, of a user who does not exist, with a NUL, a line break, bytes
# that are no text, and nothing but spaces.
IMPOSSIBLE = ("x" * 256, "y/" * 3_000, "~nosuchuser/x", "a\0b", "a\nb", "\udcff", "  ")
ARGUMENTS = [path for path in IMPOSSIBLE if "\0" not in path]  # the system ends an argument there
ENDINGS = ("", ".csv", ".zip", ".yaml", ".safetensors", ".json")


def check(*arguments):
    """Run a command that has to fail as documented, and shortly."""
    result = run_finetune(*arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), (arguments, result.exception)
    assert result.exit_code in (2, 3, 5, 6, 7, 8), (arguments, result.output)
    assert "Traceback" not in result.output
    # In a table for people a name is whole, and as wide as its column.
    assert len(result.output) < (20_000 if arguments[0] == "predict" else 4_000), arguments


@pytest.mark.parametrize("path", ARGUMENTS, ids=range(len(ARGUMENTS)))
def test_a_config_cannot_lie_at_an_impossible_path(path):
    for command in ("train", "check", "init", "lr-find", "groups", "rank", "curve", "labels", "auto"):
        check(command, path)
    for ending in ENDINGS:
        check("train", f"{path}{ending}")
    check("train", path, "--resume")


@pytest.mark.parametrize("path", IMPOSSIBLE, ids=range(len(IMPOSSIBLE)))
def test_nothing_in_a_config_can_name_an_impossible_path(path, images, tmp_path):
    config = write_small_config(tmp_path, images)
    for key in ("data.path", "model.weights", "data.val", "data.corrections", "data.exclude"):
        endings = ENDINGS if key in ("data.path", "model.weights") else [".csv"]
        for ending in endings:
            check("train", config, "--dry-run", f"{key}={path}{ending}")
    rows = [f"{image.relative_to(images)},{image.parent.name}" for image in sorted(images.glob("*/*.png"))]
    (tmp_path / "table.csv").write_text("image,label\n" + "\n".join(rows) + "\n")
    check("train", config, "--dry-run", "data.path=table.csv", f"data.image_folder={path}")


@pytest.mark.parametrize("path", ARGUMENTS, ids=range(len(ARGUMENTS)))
def test_a_run_cannot_lie_at_an_impossible_path(path, images, small_run, tmp_path):
    config, image = write_small_config(tmp_path, images), images / "cat" / "cat00.png"
    check("evaluate", path)
    check("predict", path, image)
    check("evaluate", small_run, path)
    for ending in ("", ".csv", ".png"):
        check("predict", small_run, f"{path}{ending}")
    check("predict", small_run, image, "--metadata", path)
    check("lr-find", config, "--run", path)
    check("export", path)
    check("compare", small_run, path)
    check("compare", path, small_run)


@pytest.mark.parametrize("path", [path for path in ARGUMENTS if path not in ("a\nb", "\udcff", "  ")])
def test_nothing_is_written_to_an_impossible_path(path, images, small_run, tmp_path):
    config, image = write_small_config(tmp_path, images), images / "cat" / "cat00.png"
    before = sorted(tmp_path.iterdir())
    check("predict", small_run, image, "--output", f"{path}.csv")
    check("check", config, "--html", f"{path}.html")
    check("init", images, "-o", f"{path}.yaml")
    check("lr-find", config, "--plot", f"{path}.png")
    if not path.startswith("~"):  # a shell has replaced the ~ of a user who exists
        check("train", config, "--run-dir", path)
    check("train", config, f"output.dir={path}")
    assert sorted(tmp_path.iterdir()) == before
