"""Take a training through all that a Slurm cluster does to jobs, and compare it with one that was left alone.

    apt-get install slurm-wlm munge        # Debian's packages
    python benchmarks/slurm.py             # about 10 minutes on two cores; prints what docs/jobs.md shows
    python benchmarks/slurm.py --part two  # a training in two processes alone

The cluster has one node, this machine (benchmarks/one_node_slurm.py). The script is the one that
`finetune job` writes, unchanged. The training is stopped by a signal, by its time limit, by a job of higher
priority, and by the loss of the node, each time by Slurm itself, and has to be requeued each time. What it
leaves must be that of the same command in a shell, bit for bit. A job that was cancelled, and one whose
training fails, must not come back.
"""

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from one_node_slurm import OneNodeCluster
from run_result import result_of

ROOT = Path(__file__).parents[1]
EPOCHS = "stages.unfrozen.epochs=40"
SMALL = "--gpus 0 --cpus 1 --memory 1G"


class Session:
    """A user's shell on the cluster: what is typed, and what is answered."""

    def __init__(self, cluster: OneNodeCluster, folder: Path) -> None:
        """Make the command `finetune` available in a folder, as a module or an environment would."""
        self.cluster, self.folder = cluster, folder
        make_command(folder / "bin")
        self.environment = dict(cluster.environment) | {
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
        }

    def run(self, command: str) -> str:
        """Run a line, and show it with what it prints."""
        print(f"$ {command}", flush=True)
        done = subprocess.run(
            command,
            shell=True,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self.environment,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{command} ended with {done.returncode}: {done.stderr}")
        print(done.stdout, end="", flush=True)
        return done.stdout.strip()

    def submit(self, line: str) -> str:
        """Submit a job and return its number."""
        return self.run(f"sbatch {line}").split()[-1]

    def tell(self, number: str) -> None:
        """Show how a job stands."""
        job = self.cluster.job(number)
        print(
            f"  job {number}: {job['JobState']}, restarts {job['Restarts']}, exit code {job['ExitCode']}",
            flush=True,
        )

    def wait_for_step(self, number: str, run: Path, restarts: int) -> None:
        """Wait until a job has been started again so often, and its training has made a step since."""
        deadline = time.monotonic() + 300
        size = -1
        while time.monotonic() < deadline:
            job = self.cluster.job(number)
            events = self.folder / run / "events.jsonl"
            if job["JobState"] == "RUNNING" and int(job["Restarts"]) == restarts and events.exists():
                if size < 0:
                    size = events.stat().st_size
                if b'"event": "step"' in events.read_bytes()[size:]:
                    return
            time.sleep(0.2)
        raise SystemExit(f"job {number} did not train after {restarts} restarts: {self.cluster.job(number)}")

    def wait_for_requeue(self, number: str, restarts: int) -> None:
        """Wait until a job has been put back into the queue so often."""
        deadline = time.monotonic() + 300
        while int(self.cluster.job(number)["Restarts"]) < restarts:
            if time.monotonic() > deadline:
                raise SystemExit(f"job {number} was not requeued: {self.cluster.job(number)}")
            time.sleep(0.2)
        self.tell(number)


def make_command(folder: Path) -> None:
    """Write a `finetune` that is this checkout's."""
    folder.mkdir()
    command = folder / "finetune"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m finetune "$@"\n')
    command.chmod(0o755)


def processes_of(job: str, cluster: OneNodeCluster) -> list[int]:
    """Return the processes of a job: the shell of its script, its steps, and what supervises them."""
    config = f"SLURM_CONF={cluster.environment['SLURM_CONF']}".encode()  # other clusters have a job 1 as well
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environment = (path / "environ").read_bytes().split(b"\0")
            step = (path / "cmdline").read_bytes().startswith(f"slurmstepd: [{job}.".encode())
        except OSError:  # it has ended, or is not ours
            continue
        if config in environment and (step or f"SLURM_JOB_ID={job}".encode() in environment):
            found.append(int(path.name))
    return found


def interrupt(session: Session, number: str, run: Path) -> None:
    """Let everything happen to a job that does."""
    print("\n# A signal, as before maintenance")
    session.wait_for_step(number, run, 0)
    session.run(f"scancel --signal=USR1 {number}")
    session.wait_for_requeue(number, 1)

    print("\n# A job of higher priority")
    session.wait_for_step(number, run, 1)
    urgent = session.submit("--partition=urgent --ntasks=2 --output=/dev/null --wrap='sleep 3'")
    session.wait_for_requeue(number, 2)
    session.cluster.wait_for(urgent, "COMPLETED")

    print("\n# The node is lost: everything on it ends at once, Slurm's own daemon too")
    session.wait_for_step(number, run, 2)
    session.cluster.stop_node()
    for process in processes_of(number, session.cluster):
        os.kill(process, signal.SIGKILL)
    session.wait_for_requeue(number, 3)
    session.cluster.start_node()

    print("\n# The time limit of two minutes")
    session.wait_for_requeue(number, 4)
    session.run(f"scontrol update jobid={number} timelimit=30  # so that this ends some day")


def compare(session: Session, run: Path, alone: Path) -> None:
    """Compare the run of a job with the same training in a shell."""
    expected, got = result_of(session.folder / alone), result_of(session.folder / run)
    different = [what for what, value in expected.items() if got[what] != value]
    if different:
        raise SystemExit(f"{run}: different {', '.join(different)}")
    print(f"  {run} and {alone}: identical bit for bit ({', '.join(expected)})", flush=True)


def must_not_come_back(session: Session) -> None:
    """Show that a cancelled job and a failing one stay away."""
    print("\n# A user's scancel is the end")
    job = session.submit("--job-name=cancelled job.sh")
    session.wait_for_step(job, Path("runs/quickstart"), 0)
    session.run(f"scancel {job}")
    session.cluster.wait_for(job, "CANCELLED")
    time.sleep(15)  # a requeued job waits for less than that here
    session.tell(job)
    print("\n# So is a training that fails: here its images are missing (exit code 3)")
    session.run(
        f"finetune job configs/quickstart.yaml data.path=missing --slurm {SMALL} "
        "--run-dir runs/missing -o missing.sh"
    )
    job = session.submit("missing.sh")
    session.cluster.wait_for(job, "FAILED")
    time.sleep(15)
    session.tell(job)


def two_processes(session: Session) -> None:
    """Stop and requeue a training in two processes."""
    few = "stages.frozen.epochs=2 stages.unfrozen.epochs=2"
    print(
        "\n# One training in two processes. The node only pretends to have GPUs, so they compute on the CPU"
    )
    session.run(
        f"finetune train configs/quickstart.yaml {few} device=cpu --devices 2 --run-dir alone-2 --quiet"
    )
    session.run(
        f"finetune job configs/quickstart.yaml {few} --slurm --gpus 2 --cpus 1 --memory 2G "
        "--run-dir runs/two -o two.sh"
    )
    session.run("sed --in-place s/device=cuda/device=cpu/ two.sh")
    run = Path("runs/two")
    number = session.submit("two.sh")
    session.wait_for_step(number, run, 0)
    session.run(f"scancel --signal=USR1 {number}")
    session.wait_for_requeue(number, 1)
    session.cluster.wait_for(number, "COMPLETED", seconds=900)
    session.tell(number)
    session.run(f"grep -E '^start|^devices|^Stopped|requeueing|^resume|exit code' quickstart-{number}.out")
    compare(session, run, Path("alone-2"))


def one_process(session: Session) -> None:
    """Let everything happen to a training, and show which jobs are not requeued, and an array."""
    cluster = session.cluster
    session.run(
        f"finetune job configs/quickstart.yaml {EPOCHS} --slurm {SMALL} --time 2 --notice 40 -o job.sh"
    )
    print("\n# Left alone")
    session.run(f"finetune train configs/quickstart.yaml {EPOCHS} --run-dir alone --quiet")
    run = Path("runs/quickstart")
    print()
    number = session.submit("job.sh")
    interrupt(session, number, run)
    cluster.wait_for(number, "COMPLETED", seconds=900)
    session.tell(number)
    session.run(f"grep -E '^start|^Stopped|requeueing|^resume' quickstart-{number}.out")
    compare(session, run, Path("alone"))

    print("\n# Submitted again, it is finished")
    number = session.submit("job.sh")
    cluster.wait_for(number, "COMPLETED")
    session.run(f"cat quickstart-{number}.out")
    shutil.rmtree(session.folder / run)
    must_not_come_back(session)

    print("\n# Two seeds as an array")
    session.run(
        f"finetune job configs/quickstart.yaml --slurm --seeds 1,2 {SMALL} --run-dir seeds -o seeds.sh"
    )
    number = session.submit("seeds.sh")
    cluster.wait_until_empty()
    session.run("finetune runs seeds")


def main() -> None:
    """Do all of it, and print the transcript."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=("one", "two"), help="a training in one process or in two alone")
    part = parser.parse_args().part
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the cluster must not outlive this
    with tempfile.TemporaryDirectory() as folder, OneNodeCluster() as cluster:
        session = Session(cluster, Path(folder))
        shutil.copytree(ROOT / "configs", session.folder / "configs")
        session.run("sbatch --version")
        if part != "two":
            one_process(session)
        if part != "one":
            two_processes(session)


if __name__ == "__main__":
    main()
