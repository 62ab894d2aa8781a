"""Build the package, install it as a stranger does, and try it outside of the repository: `make package`.

It says what it finds line by line, and ends with exit code 1 where something is wrong. Minutes, and some 6 GB
of a temporary folder: the environment is a new one, in which nothing of the repository is at hand.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST_MEGABYTES = 3.0  # of the wheel; the built-in weights and digits are two thirds of it
EPOCH = "1700000000"  # what all files are dated
SECONDS = 120  # after which a command that needs an extra is taken to run, and is ended

STRANGER = """\
import finetune

run = finetune.train("digits.yaml", stages__frozen__epochs=1, stages__unfrozen__epochs=1, quiet=True)
model = finetune.load(run)
reveal_type(model)
reveal_type(run)
finetune.trian("digits.yaml")
"""
DIGITS = """\
data: {path: "builtin:digits", image_size: 64, batch_size: 64, augment: light}
model: {arch: shufflenet_v2_x0_5, weights: "builtin:glyphs"}
stages:
  - {name: frozen, train: head, epochs: 1, lr: 3e-3}
  - {name: unfrozen, train: all, epochs: 1, lr: "slice(1e-4, 1e-3)"}
"""
# What needs an extra, and the extra: without it, the line that installs it has to come.
WITHOUT = {
    "timm": "groups digits.yaml model.arch=timm:resnet18",
    "onnx": "export run --output model.onnx",
    "serve": "serve run --port 8799",
    "labels": "labels digits.yaml",
    "tensorboard": "train digits.yaml loggers=[tensorboard]",
    "wandb": "train digits.yaml loggers=[wandb]",
    "mlflow": "train digits.yaml loggers=[mlflow]",
    "parquet": "init table.parquet",
    "heif": "predict run photo.heic",
    "sweep": "sweep sweep.yaml",
    "ray": "sweep ray.yaml",
}
SWEEP = """\
base: digits.yaml
trials: 1
space: {optimizer.weight_decay: {log: [1e-3, 0.3]}}
"""


class Checks:
    """What has been looked at, and whether all of it was as it should be."""

    def __init__(self) -> None:
        self.failed = 0

    def that(self, what: str, holds: bool, detail: str = "") -> None:
        """Print one line."""
        self.failed += not holds
        print(f"{'ok    ' if holds else 'FAILED'}  {what}{f': {detail}' if detail else ''}", flush=True)


def main() -> int:
    """Check everything, and return the exit code."""
    checks = Checks()
    with tempfile.TemporaryDirectory(prefix="package-") as name:
        folder = Path(name)
        wheel = build(folder, checks)
        python = install(folder, wheel)
        try_outside(folder / "outside", python, checks)
        add_extras(folder / "outside", python, wheel, checks)
        check_manual(folder, checks)
    return 1 if checks.failed else 0


def build(folder: Path, checks: Checks) -> Path:
    """Build wheel and sdist of what is committed, twice, and return the wheel."""
    shutil.unpack_archive(_archive(folder), folder / "source")
    built = []
    for number in (1, 2):
        output = folder / f"dist{number}"
        command = [sys.executable, "-m", "build", "--outdir", str(output), str(folder / "source")]
        _run(command, folder, SOURCE_DATE_EPOCH=EPOCH).check_returncode()
        built.append(next(output.glob("*.whl")))
    first, second = (hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in built)
    checks.that("two builds give the same wheel", first == second, first[:16])
    megabytes = built[0].stat().st_size / 1e6
    checks.that(
        f"the wheel has at most {MOST_MEGABYTES} MB", megabytes <= MOST_MEGABYTES, f"{megabytes:.1f} MB"
    )
    _check_source(next((folder / "dist1").glob("*.tar.gz")), checks)
    return built[0]


def _check_source(sdist: Path, checks: Checks) -> None:
    """Check that the sdist, of which the wheel was built, has all of the package and its licence."""
    with tarfile.open(sdist) as packed:
        held = {member.name.partition("/")[2] for member in packed if member.isfile()}
    tracked = subprocess.run(
        ["git", "ls-tree", "-r", "--name-only", "HEAD", "finetune", "LICENSE", "README.md", "pyproject.toml"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    missing = sorted(set(tracked) - held)
    checks.that(f"the sdist has {len(tracked)} tracked files of the package", not missing, ", ".join(missing))
    halves = sorted(name for name in held if name.startswith("tests/"))
    checks.that("the sdist has no tests, of which setuptools takes a part", not halves, ", ".join(halves[:3]))


def _archive(folder: Path) -> Path:
    path = folder / "source.tar"
    subprocess.run(["git", "archive", "--output", str(path), "HEAD"], cwd=ROOT, check=True)
    return path


def install(folder: Path, wheel: Path) -> Path:
    """Install the wheel, without extras, into a new environment, and return its Python."""
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / "bin" / "python"
    _run([str(python), "-m", "pip", "install", "--quiet", str(wheel)], folder).check_returncode()
    return python


def try_outside(folder: Path, python: Path, checks: Checks) -> None:
    """Use the package in an empty folder: every help, a training, the API, its types, missing extras."""
    folder.mkdir()
    (folder / "digits.yaml").write_text(DIGITS, encoding="utf-8")
    (folder / "sweep.yaml").write_text(SWEEP, encoding="utf-8")
    (folder / "ray.yaml").write_text(f"{SWEEP}engine: ray\n", encoding="utf-8")
    (folder / "stranger.py").write_text(STRANGER, encoding="utf-8")
    (folder / "table.parquet").write_bytes(b"PAR1" + bytes(64) + b"PAR1")
    (folder / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(64))

    def finetune(*arguments: str) -> subprocess.CompletedProcess[str]:
        return _run([str(python), "-m", "finetune", *arguments], folder)

    version = finetune("--version")
    checks.that("finetune --version", version.returncode == 0, version.stdout.strip())
    _check_help(finetune, checks)
    _check_completion(folder, python, checks)
    train = finetune("train", "digits.yaml", "--run-dir", "run", "--quiet")
    checks.that("a training", train.returncode == 0, (train.stdout or train.stderr).strip().splitlines()[-1])
    for command in (("evaluate", "run", "--quiet"), ("report", "run"), ("groups", "digits.yaml")):
        checks.that(f"finetune {' '.join(command)}", finetune(*command).returncode == 0)
    _check_types(folder, python, checks)
    _check_extras(finetune, checks)


def _commands() -> list[str]:
    sys.path.insert(0, str(ROOT))
    from finetune.cli import MODULES

    return [command for commands in MODULES.values() for command in commands]


def _check_help(finetune: Callable[..., subprocess.CompletedProcess[str]], checks: Checks) -> None:
    commands = _commands()
    silent = [command for command in commands if "Usage:" not in finetune(command, "--help").stdout]
    checks.that(f"the help of {len(commands)} commands", not silent, ", ".join(silent))


def _check_completion(folder: Path, python: Path, checks: Checks) -> None:
    program = str(python.parent / "finetune")
    for shell in ("bash", "zsh", "fish"):
        # typer would otherwise look for the shell that has started this program, and there may be none.
        shown = _run(
            [program, "--show-completion", shell], folder, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1"
        )
        checks.that(f"a completion for {shell}", "_FINETUNE_COMPLETE" in shown.stdout)
    for words, wanted in (("finetune tra", "train"), ("finetune train --resu", "--resume")):
        asked = {
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
            "_FINETUNE_COMPLETE": "complete_bash",
        }
        completed = _run([program], folder, **asked).stdout.split()
        checks.that(f"bash completes {words!r}", completed == [wanted], " ".join(completed))


def check_manual(folder: Path, checks: Checks) -> None:
    """Build the manual page from what is committed, and look for all commands in it."""
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--quiet", "-b", "man"]
    built = _run([*command, str(folder / "source" / "docs"), str(folder / "man")], folder / "source")
    page = folder / "man" / "finetune.1"
    text = page.read_text(encoding="utf-8").replace("\\-", "-") if page.exists() else ""
    missing = [command for command in _commands() if f"finetune {command}" not in text]
    checks.that("the manual page has all commands", not missing, ", ".join(missing) or built.stderr[-300:])


def _check_types(folder: Path, python: Path, checks: Checks) -> None:
    wanted = ("finetune.api.model.Model", "finetune.api.run.Run", "trian")
    mypy = [sys.executable, "-m", "mypy", "--python-executable", str(python), "stranger.py"]
    # pyright is a program of Node's, which comes as a wheel: into an environment of its own.
    tools = folder.parent / "tools"
    venv.create(tools, with_pip=True)
    its_python = str(tools / "bin" / "python")
    _run([its_python, "-m", "pip", "install", "--quiet", "pyright[nodejs]"], folder).check_returncode()
    pyright = [its_python, "-m", "pyright", "--pythonpath", str(python), "stranger.py"]
    for name, command in (("mypy", mypy), ("pyright", pyright)):
        printed = _run(command, folder).stdout
        missing = [word for word in wanted if word.rpartition(".")[2] not in printed]
        checks.that(f"{name} knows the types of a stranger's script", not missing, ", ".join(missing))


def _check_extras(finetune: Callable[..., subprocess.CompletedProcess[str]], checks: Checks) -> None:
    described = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    aside = {"offline", "test", "docs", "dev"}
    untried = set(described["optional-dependencies"]) - set(WITHOUT) - aside
    checks.that("every extra is tried", not untried, ", ".join(sorted(untried)))
    for extra, command in WITHOUT.items():
        done = finetune(*command.split())
        line = f"pip install 'finetune-vision[{extra}]'"
        says = line in done.stderr + done.stdout and "Traceback" not in done.stderr and done.returncode != 0
        checks.that(f"without {extra}: {line}", says, "" if says else (done.stderr + done.stdout)[-300:])


def add_extras(folder: Path, python: Path, wheel: Path, checks: Checks) -> None:
    """Install one extra after the other, and check that what needs it asks for it no more."""
    for extra, command in WITHOUT.items():
        line = [
            str(python),
            "-m",
            "pip",
            "install",
            "--quiet",
            f"finetune-vision[{extra}] @ {wheel.as_uri()}",
        ]
        installed = _run(line, folder)
        checks.that(f"{extra} is installed", installed.returncode == 0, installed.stderr[-300:])
        offline = {"WANDB_MODE": "offline", "MLFLOW_TRACKING_URI": (folder / "mlruns").as_uri()}
        with tempfile.TemporaryFile("w+") as printed:
            program = subprocess.Popen(
                [str(python), "-m", "finetune", *command.split()],
                cwd=folder,
                env=_known() | offline,
                stdout=printed,
                stderr=printed,
            )
            try:
                program.wait(SECONDS)
            except subprocess.TimeoutExpired:  # a server, or a page: it runs
                program.send_signal(signal.SIGINT)
                program.wait(SECONDS)
            printed.seek(0)
            said = printed.read()
        checks.that(
            f"with {extra}: finetune {command}",
            not _asks(extra, said),
            said[-300:] if _asks(extra, said) else "",
        )


def _asks(extra: str, said: str) -> bool:
    return f"finetune-vision[{extra}]" in said or "Traceback" in said


def _known() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}


def _run(command: Sequence[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=_known() | environment, capture_output=True, text=True, check=False
    )


if __name__ == "__main__":
    sys.exit(main())
