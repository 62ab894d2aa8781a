import errno
import json
import os
import re
import signal
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from conftest import run_finetune, write_small_config
from typer.testing import CliRunner

from finetune.cli import MODULES, OPENMP_TURNS, load_app
from finetune.machine.signals import StopSignals
from finetune.version import VERSION

COMMANDS = (
    *(
        "train",
        "lr-find",
        "evaluate",
        "report",
        "predict",
        "groups",
        "check",
        "rank",
        "auto",
        "sweep",
        "labels",
        "curve",
        "export",
        "serve",
        "job",
    ),
    *("models", "optimizers", "init", "schema", "doctor", "cache", "runs", "compare"),
)


def shell(*arguments, cwd=None, width="80"):
    """Run the program in a process of its own."""
    environment = os.environ | {"COLUMNS": width, "PYTHONWARNINGS": "default,ignore::DeprecationWarning"}
    command = [sys.executable, "-m", "finetune", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)


STAGE_KEYS = ("name", "train", "epochs", "lr", "image_size", "batch_norm", "features", "views")
README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_readme(command):
    assert f"`finetune {command}" in README


def test_every_command_is_tested_and_has_help():
    commands = load_app().registered_commands
    assert {command.name or command.callback.__name__ for command in commands} == set(COMMANDS)
    for command in commands:
        assert command.callback.__doc__


def test_every_command_is_in_the_module_where_it_is_looked_for():
    found = {}
    for command in load_app().registered_commands:
        module = command.callback.__module__.removeprefix("finetune.cli.")
        found.setdefault(module, []).append(command.name or command.callback.__name__)
    assert {module: tuple(commands) for module, commands in found.items()} == MODULES


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("width", [60, 200])
def test_help_fits_narrow_and_wide_terminals(command, width):
    result = CliRunner().invoke(load_app(), [command, "--help"], terminal_width=width)
    assert result.exit_code == 0
    assert "Usage: " in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= width


@pytest.mark.parametrize("width", ["60", "200"])
def test_help_is_as_wide_as_the_terminal_of_the_process(width):
    lines = shell("train", "--help", width=width).stdout.splitlines()
    assert 50 < max(map(len, lines)) <= min(int(width), 80)


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--help"], ["--version"], ["schema"], ["train", "nope.yaml"], ["train", "--help"], ["nope"]),
        *(["optimizers"], ["optimizers", "--json"], ["optimizers", "--plot", "paths.png"]),
        ["job", "nope.yaml", "--slurm"],
    ],
)
def test_help_and_config_errors_never_import_torch(arguments, tmp_path):
    program = (
        "import sys\n"
        "from finetune.cli import main\n"
        f"sys.argv[1:] = {arguments!r}\n"
        "try:\n"
        "    main()\n"
        "except SystemExit:\n"
        "    pass\n"
        "heavy = {'torch', 'torchvision', 'fastai', 'numpy', 'PIL', 'sklearn'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert result.stdout.splitlines()[-1] == "HEAVY []", result.stderr


def test_a_config_with_mistakes_is_refused_without_torch(tmp_path):
    (tmp_path / "bad.yaml").write_text("data: {path: x, batchsize: 3}\nseed: 1.5\n")
    result = shell("train", "bad.yaml", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("error: bad.yaml:1 data.batchsize: ")
    assert "\nerror: bad.yaml:2 seed: " in result.stderr  # every mistake is marked as one
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP computes for torch on Linux")
@pytest.mark.parametrize(
    ("given", "turns"),
    [({}, OPENMP_TURNS), ({"GOMP_SPINCOUNT": "77"}, "77"), ({"OMP_WAIT_POLICY": "passive"}, "0")],
)
def test_threads_wait_for_each_other_as_the_user_says_or_shortly(given, turns, images, tmp_path):
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    result = subprocess.run(
        [sys.executable, "-m", "finetune", "groups", write_small_config(tmp_path, images)],
        env=variables | {"OMP_DISPLAY_ENV": "verbose"} | given,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    # Every copy of OpenMP that is loaded says what it has understood.
    assert set(re.findall(r"GOMP_SPINCOUNT = '(\d+)'", result.stderr)) == {turns}


def test_an_error_in_a_config_waits_for_no_library_that_it_has_no_use_for(tmp_path):
    (tmp_path / "bad.yaml").write_text("data: {path: x, batchsize: 3}\n")
    program = (
        "import sys\n"
        "from finetune.cli import main\n"
        "sys.argv[1:] = ['train', 'bad.yaml']\n"
        "try:\n"
        "    main()\n"
        "except SystemExit:\n"
        "    print([name for name in ('rich', 'finetune.data') if name in sys.modules])\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert "data.batchsize" in result.stderr
    assert result.stdout == "[]\n"


@pytest.mark.parametrize("command", ["train", "lr-find", "check"])
def test_the_first_line_comes_before_pytorch_is_loaded(command, images, tmp_path):
    config = write_small_config(tmp_path, images)
    program = (
        "import sys\n"
        "from finetune.display import Display\n"
        "from finetune.cli import load_app\n"
        "said = Display.say\n"
        "def say(self, text):\n"
        "    said(self, f'{text}, {\"torch\" in sys.modules}')\n"
        "    sys.stdout.flush()\n"
        "    raise SystemExit\n"
        "Display.say = say\n"
        f"load_app()([{command!r}, {str(config)!r}])\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout.splitlines() == [f"{command:<7} {config} (loading PyTorch), False"]


def test_json_has_no_first_line(small_run):
    result = run_finetune("train", "--resume", small_run, "--json")
    assert "loading" not in result.output


def test_no_summary_of_a_command_is_cut_at_80_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    summaries = run_finetune("--help").stdout.partition("Commands:")[2]
    assert "predict" in summaries
    assert not re.search(r"\.\.\.|…", summaries)


def test_the_version_is_told():
    assert run_finetune("--version").stdout == f"finetune {VERSION}\n"


def test_no_command_shows_the_help():
    assert "Usage: " in run_finetune().output


@pytest.mark.parametrize("arguments", [["nope"], ["check"], ["train", "x.yaml", "--nope"], ["evaluate"]])
def test_wrong_usage_exits_with_two(arguments):
    assert run_finetune(*arguments).exit_code == 2


def test_groups_as_json_hold_the_documented_keys(images, tmp_path):
    config = write_small_config(tmp_path, images)
    result = run_finetune("groups", config, "--json", "--stage", "frozen")
    assert result.exit_code == 0, result.output
    groups = json.loads(result.stdout)["groups"]
    assert [group["name"] for group in groups] == ["early backbone", "late backbone", "head"]
    assert [group["index"] for group in groups] == [0, 1, 2]
    assert [group["trainable"] for group in groups] == [False, False, True]
    assert [group["lr"] for group in groups] == [None, None, 1e-2]
    assert [group["weight_decay"] for group in groups] == [None, None, 0.01]
    for group in groups:
        assert set(group) == {"index", "name", "layers", "parameters", "trainable", "lr", "weight_decay"}
        assert sum(layer["parameters"] for layer in group["layers"]) == group["parameters"]
        for layer in group["layers"]:
            assert set(layer) == {"name", "type", "affine", "shape", "parameters"}
    affine = [layer for layer in groups[2]["layers"] if layer["affine"]]
    assert [layer["shape"] for layer in affine] == [[16, 2048], [3, 16]]


def test_groups_show_the_last_stage_unless_told(images, tmp_path):
    result = run_finetune("groups", write_small_config(tmp_path, images), "--json")
    assert [group["lr"] for group in json.loads(result.stdout)["groups"]] == pytest.approx([1e-4, 1e-3, 1e-2])


def test_groups_name_the_stages_there_are(images, tmp_path):
    result = run_finetune("groups", write_small_config(tmp_path, images), "--stage", "nope")
    assert result.exit_code == 2
    assert "the config has frozen, unfrozen" in result.stderr


def test_groups_print_every_layer(images, tmp_path):
    result = run_finetune("groups", write_small_config(tmp_path, images))
    assert result.exit_code == 0
    assert "backbone.conv1.0" in result.stdout
    assert "24×3×3×3" in result.stdout


def test_models_are_found_by_pattern():
    listed = json.loads(run_finetune("models", "resnet1*", "--json").stdout)
    assert [model["name"] for model in listed] == ["resnet101", "resnet152", "resnet18"]
    assert listed[2]["parameters"] == 11_689_512
    assert "IMAGENET1K_V1" in listed[2]["weights"]
    assert "resnet18" in run_finetune("models", "resnet18").stdout


def test_a_wrong_architecture_gets_the_nearest_names(images, tmp_path):
    config = write_small_config(tmp_path, images)
    result = run_finetune("train", config, "model.arch=resnet19", "--run-dir", tmp_path / "run")
    assert result.exit_code == 2
    assert "resnet18" in result.stderr
    assert not (tmp_path / "run").exists()


def test_json_and_csv_cannot_both_go_to_stdout(small_run):
    assert run_finetune("predict", small_run, "x.png", "--json", "--csv").exit_code == 2


def test_init_writes_a_config_that_loads(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run_finetune("init", images, "-o", "pets.yaml")
    assert result.exit_code == 0, result.output
    assert (
        run_finetune("train", "pets.yaml", "model.weights=none", "model.arch=resnet18", "--dry-run").exit_code
        == 0
    )
    assert run_finetune("init", images, "-o", "pets.yaml").exit_code == 2


def test_the_schema_is_json():
    assert json.loads(run_finetune("schema").stdout)["properties"]["data"]


@pytest.mark.slow
def test_output_into_a_closed_pipe_ends_quietly(small_run, images):
    command = f"{sys.executable} -m finetune predict {small_run} {images} --csv | head -1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert result.stdout == "image,rank,class,probability,unsure,unlike,error\n"
    assert "Traceback" not in result.stderr
    assert "BrokenPipe" not in result.stderr


def test_a_stop_is_acknowledged_before_the_step_ends(capfd):
    with StopSignals() as stop, stop.deferred():
        signal.raise_signal(signal.SIGINT)
        assert capfd.readouterr().err == "SIGINT: stopping after this step; press again to stop at once\n"


def test_no_architecture_of_a_name_is_an_error():
    result = run_finetune("models", "xyz")
    assert result.exit_code == 2
    assert "xyz: no architecture has such a name" in result.stderr


# Of those that are done at once; `models` has loaded torch when it prints.
@pytest.mark.parametrize(
    ("command", "to"),
    [
        *product(("optimizers", "optimizers --json", "schema"), ("| head -1", ">&-", ">/dev/full")),
        ("--version", ">/dev/full"),
        pytest.param("models", "| head -1", marks=pytest.mark.slow),
        pytest.param("models", ">/dev/full", marks=pytest.mark.slow),
    ],
)
def test_a_lost_reader_is_no_traceback(command, to):
    line = f"set -o pipefail; {sys.executable} -m finetune {command} {to}"
    result = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    full = to == ">/dev/full"
    assert result.returncode == (6 if full else 0)
    assert result.stderr.startswith("error: The result could not be printed: ") if full else not result.stderr


@pytest.mark.parametrize("command", ["--help", "train --help"])
def test_help_that_cannot_be_printed_is_two_lines(command):
    line = f"{sys.executable} -m finetune {command} >/dev/full"
    result = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    said = "error: No space left on device.\nPrint to another place, or make room there.\n"
    assert (result.returncode, result.stderr) == (6, said)


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_a_result_that_finds_no_room_is_no_success(command, small_run, images):
    line = f"{sys.executable} -m finetune {command} {small_run} >/dev/full"
    line = line.replace(" >", f" {images / 'cat' / 'cat00.png'} >") if command == "predict" else line
    result = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert result.returncode == 6
    assert result.stderr.startswith("error: The result could not be printed: No space left on device.\n")


@pytest.mark.slow
@pytest.mark.parametrize("to", ["| head -1", ">&-", ">/dev/full"])
def test_a_training_goes_on_when_nobody_reads_it(images, tmp_path, to):
    config, run = write_small_config(tmp_path, images), tmp_path / "run"
    line = f"set -o pipefail; {sys.executable} -m finetune train {config} --run-dir {run} {to}"
    result = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads((run / "status.json").read_text())["state"] == "done"


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        (["--epochs", "3"], "stages.frozen.epochs=3"),
        (["--lr=1e-3"], "stages.frozen.lr=1e-3"),
        (["--device", "cpu"], "device=cpu"),
        (["--batch-size", "16"], "data.batch_size=16"),
        (["--batchsize", "16"], "data.batch_size=16"),
        (["--model", "resnet50"], "model.arch=resnet50"),
        (["--model.arch"], "model.arch=VALUE"),
    ],
)
@pytest.mark.parametrize("command", ["train", "lr-find", "groups", "check"])
def test_a_key_that_was_given_as_an_option_is_hinted_at(command, given, hint):
    result = run_finetune(command, "photos.yaml", *given)
    assert result.exit_code == 2
    option = given[0].partition("=")[0]
    assert f"No such option: {option}. A key of the config is set without dashes: {hint}\n" in result.output


def test_the_hint_names_a_stage_of_the_config():
    Path("probe.yaml").write_text(
        "data: {path: x}\nstages: [{name: probe, train: head, epochs: 3, lr: 1e-3}]\n"
    )
    result = run_finetune("train", "probe.yaml", "--epochs", "5", "--resume")
    assert "stages.probe.epochs=5\n" in result.output


def test_a_misspelt_option_gets_the_nearest_one():
    assert "--resume" in run_finetune("train", "photos.yaml", "--resum").output


def test_train_without_an_argument_says_what_to_type():
    result = run_finetune("train")
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 2
    assert "finetune train photos.yaml" in result.stderr
    assert "finetune init photos" in result.stderr


@pytest.fixture
def protected(tmp_path, monkeypatch):
    """Return a folder in which no file may be written; root may write everywhere, so the system is played."""
    folder = tmp_path / "protected"
    folder.mkdir()
    real = Path.open

    def refuse(path, mode="r", *arguments, **options):
        if path.parent == folder and set(mode) & set("wax+"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    return folder


def test_no_permission_to_write_is_8_before_any_work(protected, images, tmp_path):
    config = write_small_config(tmp_path, images)
    inside = config.rename(protected / "small.yaml")
    for arguments in (
        ["lr-find", inside, "--plot", protected / "x.png"],
        ["lr-find", inside, "--write"],
        ["init", images, "-o", protected / "x.yaml"],
        ["optimizers", "--race", "--plot", protected / "x.png"],
    ):
        result = run_finetune(*arguments)
        assert (result.exit_code, result.stdout) == (8, ""), result.output
        assert re.search(r"error: Cannot write \S+: Permission denied\.", result.stderr)


def test_a_folder_is_no_file_for_a_plot(images, tmp_path):
    (tmp_path / "x.png").mkdir()
    result = run_finetune("lr-find", write_small_config(tmp_path, images), "--plot", tmp_path / "x.png")
    assert result.exit_code == 2
    assert "this is a folder; name a file in it" in result.stderr


COMPLETION = "import sys; sys.argv[0] = 'finetune'; from finetune.__main__ import main; main()"


def completions(line):
    """Return the variables by which a shell asks for what may follow on a line."""
    return {"_FINETUNE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}


def test_a_shell_completes_by_the_program():
    environment = os.environ | completions("finetune tr")
    asked = subprocess.run(
        [sys.executable, "-c", COMPLETION], capture_output=True, text=True, env=environment
    )
    assert (asked.stdout.split(), asked.stderr) == (["train"], "")


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("finetune train probe.yaml optimizer.w", ["optimizer.weight_decay="]),
        ("finetune train probe.yaml stages.probe.e", ["stages.probe.epochs="]),
        ("finetune train nowhere.yaml stages.unf", [f"stages.unfrozen.{k}=" for k in STAGE_KEYS]),
        ("finetune train probe.yaml model.arch=resnet10", ["model.arch=resnet101"]),
        ("finetune lr-find probe.yaml --stage ", ["probe"]),
        ("finetune groups probe.yaml --stage p", ["probe"]),
        ("finetune models resnext", ["resnext101_32x8d", "resnext101_64x4d", "resnext50_32x4d"]),
        ("finetune evaluate ru", ["runs/one"]),
        ("finetune predict elsew", ["elsewhere/"]),
        ("finetune lr-find probe.yaml --run runs/", ["runs/one"]),
    ],
)
def test_a_shell_completes(line, completed, tmp_path):
    stage = "{name: probe, train: head, epochs: 3, lr: 1e-3}"
    (tmp_path / "probe.yaml").write_text(f"data: {{path: x}}\nstages: [{stage}]\n")
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "one" / "status.json").touch()
    (tmp_path / "elsewhere").mkdir()
    asked = CliRunner().invoke(load_app(), prog_name="finetune", env=completions(line))
    assert (asked.stdout.split(), asked.stderr) == (completed, "")


# --quiet


@pytest.mark.parametrize(
    ("command", "lines"),
    [
        (
            "train {config} --run-dir run",
            [
                "warning: 6 images say little: .*",
                "Score the model on more images: .*",
                r"done in .*: run \(validation loss \d\.\d{4}, accuracy .*%, mAP .*\)",
            ],
        ),
        ("lr-find {config} lr_finder.steps=30", [r"lr: \d.*"]),
        ("evaluate {run}", [r"accuracy 100\.00%   loss .*   \(6 images\)"]),
        ("predict {run} {image} -o all.csv", ["1 prediction written to all.csv"]),
        ("predict {run} {image}", ["image .*probability.*", r".*cat00\.png .*%  –"]),
    ],
)
def test_a_quiet_command_prints_warnings_and_its_result_only(images, small_run, tmp_path, command, lines):
    config = write_small_config(tmp_path, images)
    words = command.format(config=config, run=small_run, image=images / "cat/cat00.png").split()
    result = run_finetune(*words, "--quiet")
    assert (result.exit_code, result.stderr) == (0, "")
    printed = result.stdout.splitlines()
    assert len(printed) == len(lines), result.stdout
    assert all(map(re.fullmatch, lines, printed)), result.stdout


def test_a_quiet_command_still_warns_and_reports_errors(small_run, tmp_path):
    (tmp_path / "no.png").write_bytes(b"nothing")
    result = run_finetune("predict", small_run, tmp_path / "no.png", "--quiet", "--json")
    assert result.exit_code == 3
    assert result.stderr == "warning: 1 of 1 image could not be read\n"
    result = run_finetune("evaluate", tmp_path, "--quiet")
    assert (result.exit_code, result.stdout) == (8, "")
    assert result.stderr.startswith("error: ")


def test_a_quiet_dry_run_shows_the_plan(images, tmp_path):
    result = run_finetune("train", write_small_config(tmp_path, images), "--dry-run", "--quiet")
    assert "stage 1 of 2: frozen" in result.stdout
    assert "loading PyTorch" not in result.stdout
