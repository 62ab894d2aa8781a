"""Walk a stranger's way, from a clone to a served model, and print a transcript with the time of each step.

    python scripts/stranger.py PHOTOGRAPHS [--from REPOSITORY] [--last 12] [--picture REPORT.png]

PHOTOGRAPHS has train/ and val/ with one folder per class. In an empty folder, with an empty HOME and no
environment but its own: clone, install with real ImageNet weights and the server, `init`, `check`, `train`,
`evaluate`, `predict`, `export`, `serve`, and a photograph sent to the server, which has to give it the class
that `predict` gives it. It ends with exit code 1 where a step fails.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
ADDRESS = "http://127.0.0.1:8765"
SERVER = f"finetune serve runs/first --port {ADDRESS.rpartition(':')[2]}"


@dataclass(frozen=True)
class Step:
    """A command of the way, and how many of its last lines are shown; None shows as many as are asked for."""

    command: str
    last: int | None = None


WAY = (
    Step("git clone --quiet {repository} finetune", 0),
    Step("python3 -m venv env", 0),
    Step("pip install --quiet './finetune[offline,onnx,serve]'", 0),
    Step("finetune --version"),
    Step("finetune init photos"),
    Step("finetune check photos.yaml"),
    Step("finetune train photos.yaml --run-dir runs/first"),
    Step("finetune evaluate runs/first"),
    Step("finetune predict runs/first {image}"),
    Step("finetune export runs/first --output model.onnx"),
)


def main() -> int:
    """Walk the whole way, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--from", dest="repository", type=Path, default=ROOT)
    parser.add_argument("--last", type=int, default=12, help="lines shown of what a command prints")
    parser.add_argument("--picture", type=Path, help="where a picture of the report is kept")
    options = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="stranger-") as name:
        folder = Path(name)
        shutil.copytree(options.photographs, folder / "photos")
        image = min((folder / "photos" / "val").glob("*/*")).relative_to(folder)
        repository = options.repository.resolve()
        for step in WAY:
            command = step.command.format(repository=repository, image=image)
            last = options.last if step.last is None else step.last
            if not walked(command, folder, last, {str(folder): "~", str(repository): "~/finetune.git"}):
                return 1
        served = asked(folder, image)
        if options.picture is not None:
            from tutorials import take_picture  # takes Pillow and Chromium, which the rest does without

            take_picture(folder / "runs" / "first" / "report.html", options.picture, size=(1000, 640))
    print(f"\nin all {minutes(time.perf_counter() - began)}")
    return 0 if served else 1


def minutes(seconds: float) -> str:
    """Write a time as minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def environment(folder: Path) -> dict[str, str]:
    """Return the variables of somebody who has nothing yet; how packages are found is left as it is."""
    kept = {key: value for key, value in os.environ.items() if key.startswith(("PIP_", "LANG", "LC_"))}
    programs = os.pathsep.join((str(folder / "env" / "bin"), os.defpath))
    (folder / "home").mkdir(exist_ok=True)
    return kept | {"PATH": programs, "HOME": str(folder / "home"), "COLUMNS": "110"}


def walked(command: str, folder: Path, last: int, names: Mapping[str, str] | None = None) -> bool:
    """Run a command, print it with its time and its last lines, and tell whether it succeeded.

    Args:
        command: a line for a shell.
        folder: where it runs.
        last: how many lines are shown.
        names: what stands in the transcript for folders of this machine.
    """
    began = time.perf_counter()
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment(folder),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    said = done.stdout.rstrip().splitlines()
    shown = said if done.returncode else said[max(0, len(said) - last) :]
    transcript = [f"$ {command}    # {time.perf_counter() - began:.1f} s"]
    transcript += [*(["…"] * (bool(shown) and len(shown) < len(said))), *shown]
    print(renamed("\n".join(transcript), names or {}), flush=True)
    if done.returncode:
        print(f"exit code {done.returncode}")
    return not done.returncode


def renamed(text: str, names: Mapping[str, str]) -> str:
    """Replace folders of this machine by what a stranger would have."""
    for name in sorted(names, key=len, reverse=True):
        text = text.replace(name, names[name])
    return text


def asked(folder: Path, image: Path) -> bool:
    """Send the photograph to a server, and tell whether it answers as `predict` does."""
    began = time.perf_counter()
    server = subprocess.Popen(
        ["bash", "-c", f"exec {SERVER}"],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    print(f"$ {SERVER} &")
    try:
        patiently = "curl --silent --retry 60 --retry-connrefused --retry-delay 1"
        command = f"{patiently} -F images=@{image} {ADDRESS}/predict"
        answer = output(command, folder)
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=60)
    print(f"$ {command}    # {time.perf_counter() - began:.1f} s, with the start of the server")
    print(answer)
    predicted = output(f"finetune predict runs/first {image} --json 2> /dev/null", folder)
    same = first_class(answer) == first_class(predicted)
    print("the server and predict name the same class" if same else f"predict says otherwise: {predicted}")
    return same


def output(command: str, folder: Path) -> str:
    """Return what a command prints; an empty text where it fails."""
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment(folder), text=True, stdout=subprocess.PIPE
    )
    return done.stdout.strip() if not done.returncode else ""


def first_class(answer: str) -> str | None:
    """Return the most probable class of the only picture of an answer; None where there is no answer."""
    return json.loads(answer)[0]["predictions"][0]["class"] if answer else None


if __name__ == "__main__":
    sys.exit(main())
