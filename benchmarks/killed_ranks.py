"""Kill each rank in each phase of a training under torchrun, which starts all again, and compare the results.

`benchmarks/devices.py kill` calls this. A job is one training in two processes; in each of its starts one of
them is killed with SIGKILL, in the first while the images are scanned, in the second while features are
computed, and so on through `PHASES`, at a random call of a function of that phase. The last start is left
alone, and what the run has left then is compared with a run that was never killed: best and last weights,
history, events, report, config and found rate, times aside. Which rank is killed alternates.

A rank kills itself, but where only rank 0 does something: then rank 0 kills whoever is to be killed, as it
comes to it. So each kill falls where it is meant to, also on a machine that is slow.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from PIL import Image
from run_result import result_of

CONFIG = """
seed: 5
precision: float32
monitor: val_loss
data: {path: images, val: 0.25, image_size: 32, batch_size: 16, augment: light}
model: {arch: shufflenet_v2_x0_5, weights: "builtin:glyphs", head: {hidden: [32]}}
checkpoint: {every: 2}
lr_finder: {steps: 20, race_steps: 5, start: 1e-5}
stages:
  - {name: frozen, train: head, epochs: 2, lr: 1e-2, views: 1}
  - {name: unfrozen, train: all, epochs: 3, lr: "slice(auto/100, auto)"}
"""

PHASES: Mapping[str, tuple[str, str, int]] = {
    "scan": ("data/images/parallel.py", "_studied", 60),
    "features": ("model/classifier.py", "features", 4),
    "frozen stage": ("training/loop.py", "_train", 10),
    "finder": ("lr_finder/trial.py", "steps", 20),
    "unfrozen stage": ("training/loop.py", "_train", 5),
    "validation": ("commands/train/stages.py", "val_batch", 2),
    "checkpoint being written": ("machine/files.py", "publish", 3),
    "end": ("commands/train/finish.py", "write_report", 1),
}
"""Of each phase, in their order: the file and the function at whose calls a rank dies, and how many calls
there are to choose from."""
_BY_RANK_0 = ("scan", "checkpoint being written")
_HUNG = 600.0  # seconds in which nothing was started, killed or ended


def write_images(folder: Path, each: int = 12) -> None:
    """Write some of scikit-learn's digits as files, so that there is something to scan."""
    from sklearn import datasets

    counts, targets = datasets.load_digits(return_X_y=True)
    for digit in range(10):
        (folder / str(digit)).mkdir(parents=True)
        for number, row in enumerate(counts[targets == digit][:each]):
            pixels = (row.reshape(8, 8) * 15).astype("uint8")
            Image.fromarray(pixels).save(folder / str(digit) / f"{number}.png")


def kill(folder: Path, kills: int, log: Path | None) -> None:
    """Kill until there are so many kills in the log, which an interrupted program goes on from; show them."""
    log = folder / "kills.jsonl" if log is None else log.absolute()
    (folder / "config.yaml").write_text(CONFIG)
    write_images(folder / "images")
    _train(folder / "alone", {})
    expected = result_of(folder / "alone" / "run")
    while sum(len(job["kills"]) for job in _read(log)) < kills:
        number = len(_read(log))
        job = folder / f"job-{number}"
        job_log = {"job": number, **_train(job, plan_of(number))}
        different = _different(expected, job / "run") if job_log["exit_code"] == 0 else ["no result"]
        with open(log, "a") as file:
            file.write(json.dumps(job_log | {"different": different}) + "\n")
        print(
            f"job {number}: {len(job_log['kills'])} kills, "
            f"{'identical bit for bit' if not different else 'DIFFERENT ' + ', '.join(different)}",
            flush=True,
        )
    show(_read(log))


def plan_of(job: int) -> dict[str, Any]:
    """Return who is killed when in each start of a job."""
    chance = random.Random(job)
    return {
        str(start): {"phase": phase, "rank": (job + start) % 2, "call": chance.randint(1, most)}
        for start, (phase, (_, _, most)) in enumerate(PHASES.items())
    }


def show(jobs: Sequence[Mapping[str, Any]]) -> None:
    """Print how often each rank was killed in each phase, and what became of it."""
    counted = Counter((kill["phase"], kill["rank"]) for job in jobs for kill in job["kills"])
    print(f"{'killed with SIGKILL in':<26} {'rank 0':>6} {'rank 1':>6}")
    for phase in PHASES:
        print(f"{phase:<26} {counted[phase, 0]:>6} {counted[phase, 1]:>6}")
    print(f"{'all':<26} {sum(counted[phase, 0] for phase in PHASES):>6} ", end="")
    print(f"{sum(counted[phase, 1] for phase in PHASES):>6}")
    same = sum(not job["different"] for job in jobs)
    hung = sum(job["hung"] for job in jobs)
    left = sum(job["left"] for job in jobs)
    print(f"{same} of {len(jobs)} runs ended with what one leaves that was never killed, bit for bit")
    print(f"{counted.total()} restarts by torchrun, of which {hung} hung; {left} processes were left behind")


def _train(job: Path, plan: Mapping[str, Any]) -> dict[str, Any]:
    """Train in two processes, of which one is killed in each start of the plan; say what became of them."""
    job.mkdir()
    (job / "plan.json").write_text(json.dumps(plan))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    train = ["train", "../config.yaml", f"data.path={job.parent / 'images'}", "--run-dir", "run", "--quiet"]
    process = subprocess.Popen(
        [*command, "--max-restarts", str(len(plan)), __file__, str(job), *train],
        cwd=job,
        env=os.environ | {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(job / "cache")},
        stdout=subprocess.DEVNULL,
        stderr=open(job / "errors", "wb"),  # noqa: SIM115  (torchrun's, to the end of the process)
        start_new_session=True,
    )
    seen, since = 0, time.monotonic()
    while process.poll() is None and time.monotonic() - since < _HUNG:
        time.sleep(0.5)
        if seen != (there := len(_read(job / "starts"))):
            seen, since = there, time.monotonic()
    hung = process.poll() is None
    if hung:
        os.killpg(process.pid, signal.SIGKILL)
    time.sleep(1)
    pids = [line["pid"] for line in _read(job / "starts") if "pid" in line]
    return {
        "kills": [line for line in _read(job / "starts") if "phase" in line],
        "exit_code": process.wait(),
        "hung": hung,
        "left": sum(Path(f"/proc/{pid}").exists() for pid in pids),
    }


def _different(expected: Mapping[str, Any], run: Path) -> list[str]:
    found = result_of(run)
    return [what for what, value in expected.items() if found[what] != value]


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def _note(job: Path, value: Mapping[str, Any]) -> None:
    with open(job / "starts", "a") as file:
        file.write(json.dumps(value) + "\n")
        os.fsync(file.fileno())


def run_rank(job: Path) -> None:
    """Be one of the ranks: train, until the plan says who is to be killed."""
    rank, start = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    _note(job, {"start": start, "pid": os.getpid()})
    (job / f"pid-{rank}").write_text(f"{start} {os.getpid()}")
    planned = json.loads((job / "plan.json").read_text()).get(str(start))
    if planned is not None and rank == (0 if planned["phase"] in _BY_RANK_0 else planned["rank"]):
        import finetune.commands.train.train  # before what follows slows it down
        import finetune.training.loop  # noqa: F401

        sys.settrace(_watch(planned, lambda: _kill(job, start, planned)))
    from finetune.__main__ import main

    sys.argv = ["finetune", *sys.argv[2:]]
    main()


def _kill(job: Path, start: int, planned: Mapping[str, Any]) -> None:
    their_start, pid = (job / f"pid-{planned['rank']}").read_text().split()
    assert int(their_start) == start, "a rank came here before the other had begun"
    _note(job, {"start": start, **planned})
    os.kill(int(pid), signal.SIGKILL)


def _watch(planned: Mapping[str, Any], kill: Callable[[], None]) -> Callable[..., None]:
    """Return a function for `sys.settrace` that kills at one of the calls of a phase."""
    file, function, _ = PHASES[planned["phase"]]
    if planned["phase"] == "end" and planned["rank"] == 1:  # nothing is written there
        file, function = "machine/meeting.py", "end_ranks"
    own, left = os.getpid(), planned["call"]

    def called(frame: FrameType, event: str, argument: object) -> None:
        nonlocal left
        code = frame.f_code
        if code.co_name != function or not code.co_filename.endswith(file) or os.getpid() != own:
            return
        if function == "_train" and frame.f_locals["self"]._step.stage != (
            planned["phase"] != "frozen stage"
        ):
            return
        if function == "publish" and frame.f_locals["path"].parent.name != "checkpoints":
            return
        left -= 1
        if left == 0:
            sys.settrace(None)
            kill()

    return called


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        run_rank(Path(sys.argv[1]))
