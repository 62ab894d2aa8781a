"""A Slurm cluster of one node on this machine, in a folder, for as long as a command or a test runs.

    apt-get install slurm-wlm munge                         # Debian's packages
    python benchmarks/one_node_slurm.py                     # a shell in which sbatch, squeue, scontrol work
    python benchmarks/one_node_slurm.py -- sbatch job.sh    # a command, and the end once no job is left

Neither systemd nor root nor control groups are needed, and nothing of the system's own Slurm is touched:
keys, sockets, states and logs lie in a temporary folder, and the ports are free ones. The node pretends to
have two GPUs, of which Slurm only counts how many are taken. There are two partitions: a job in `urgent`
takes the node from one in `main`, which is told `GraceTime` before.
"""

import argparse
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel", "sinfo")

_UP = ("idle", "mixed", "allocated")

_CONFIG = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
SchedulerParameters=sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=30
SlurmdTimeout=15
ReturnToService=2
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:2
PartitionName=main Nodes={host} Default=YES MaxTime=60 PriorityTier=1 GraceTime=60 State=UP
PartitionName=urgent Nodes={host} MaxTime=60 PriorityTier=9 PreemptMode=OFF State=UP
"""


def missing_programs() -> list[str]:
    """Return what has to be installed before a cluster can be started."""
    return [name for name in PROGRAMS if _find(name) is None]


class OneNodeCluster:
    """A cluster that is up while it is entered."""

    def __init__(self, *, cpus: int = 2, memory: int = 4000) -> None:
        """Take note of what the node pretends to have: cores, and MiB of memory."""
        self.cpus, self.memory = cpus, memory
        self.environment: Mapping[str, str] = os.environ
        self._folder = Path()
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        if missing := missing_programs():
            raise SystemExit(
                f"{', '.join(missing)}: not found; install Slurm: apt-get install slurm-wlm munge"
            )
        self._folder = Path(tempfile.mkdtemp(prefix="one-node-slurm-"))
        self.environment = os.environ | {"SLURM_CONF": str(self._folder / "slurm.conf")}
        try:
            self._write_files()
            munge = (
                "--key-file=munge.key",
                "--socket=munge.socket",
                "--pid-file=munge.pid",
                "--seed-file=seed",
            )
            self._start("munged", "--foreground", "--force", *munge, "--log-file=munge.log")
            self._start("slurmctld", "-D")
            self.start_node()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in reversed(list(self._daemons)):
            self._stop(name)
        shutil.rmtree(self._folder, ignore_errors=True)

    def start_node(self) -> None:
        """Start the daemon of the node, and wait until it takes jobs."""
        self._start("slurmd", "-D")
        self._wait_until_idle()

    def stop_node(self) -> None:
        """Stop the daemon of the node; jobs on it go on."""
        self._stop("slurmd")

    def ask(self, *command: str) -> str:
        """Run one of Slurm's commands and return what it prints.

        Raises:
            RuntimeError: it fails.
        """
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def job(self, number: str) -> dict[str, str]:
        """Return what the controller knows of a job: `JobState`, `ExitCode`, `Restarts` and others."""
        words = self.ask("scontrol", "--oneliner", "show", "job", number).splitlines()[0].split()
        return dict(word.partition("=")[::2] for word in words)

    def wait_for(self, number: str, *states: str, seconds: float = 300) -> dict[str, str]:
        """Wait until a job is in one of some states.

        Raises:
            TimeoutError: it is not, after so many seconds.
        """
        deadline = time.monotonic() + seconds
        while (job := self.job(number))["JobState"] not in states:
            if time.monotonic() > deadline:
                raise TimeoutError(f"job {number} is {job['JobState']} and not {' or '.join(states)}")
            time.sleep(0.2)
        return job

    def wait_until_empty(self) -> None:
        """Wait until no job is left."""
        while self.ask("squeue", "--noheader"):
            time.sleep(0.5)

    def _write_files(self) -> None:
        (self._folder / "state").mkdir()
        (self._folder / "spool").mkdir()
        key = self._folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        controller_port, node_port = _free_ports(2)
        values = {
            "host": socket.gethostname().partition(".")[0],
            "user": _user(),
            "folder": self._folder,
            "controller_port": controller_port,
            "node_port": node_port,
            "cpus": self.cpus,
            "memory": self.memory,
        }
        (self._folder / "slurm.conf").write_text(_CONFIG.format(**values))
        (self._folder / "gres.conf").write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n")
        (self._folder / "cgroup.conf").write_text("CgroupPlugin=autodetect\n")

    def _start(self, name: str, *options: str) -> None:
        program = _find(name)
        assert program is not None  # looked for before
        log = (self._folder / f"{name}.out").open("wb")
        self._daemons[name] = subprocess.Popen(
            [program, *options],
            cwd=self._folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is not for them
        )
        log.close()

    def _stop(self, name: str) -> None:
        daemon = self._daemons.pop(name)
        daemon.terminate()
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def _wait_until_idle(self, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while True:
            for daemon in self._daemons.values():
                if daemon.poll() is not None:
                    raise RuntimeError(f"{daemon.args} ended with {daemon.returncode}\n{self._logs()}")
            with suppress(RuntimeError):  # the controller does not answer yet
                if self.ask("sinfo", "--noheader", "--format=%T", "--partition=main") in _UP:
                    return
            if time.monotonic() > deadline:
                raise TimeoutError(f"the node did not come up\n{self._logs()}")
            time.sleep(0.1)

    def _logs(self) -> str:
        logs = sorted(self._folder.glob("*.log")) + sorted(self._folder.glob("*.out"))
        return "\n".join(f"{path.name}:\n{path.read_text(errors='replace')[-1500:]}" for path in logs)


def _find(name: str) -> str | None:
    """Find a program, also where the path of a user does not lead."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def main() -> None:
    """Start the cluster, run a command or a shell in it, and take it down."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", nargs="*", help="what to run [default: a shell]")
    command = parser.parse_args().command
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the daemons must not outlive this
    with OneNodeCluster() as cluster:
        done = subprocess.run(
            command or [os.environ.get("SHELL", "/bin/sh")], env=cluster.environment, check=False
        )
        if command:
            cluster.wait_until_empty()
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
