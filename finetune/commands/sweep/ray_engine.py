"""Trials on a Ray cluster: a task for each, on whichever node is free; the study stays with the driver.

Runs lie in the folder of the sweep, which every node has to see. A task whose node dies is run again by Ray
on another one, where its training is resumed from its last checkpoint.
"""

import importlib
import importlib.util
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.commands.sweep.folder import SweepFolder
from finetune.commands.sweep.local import Failures, Tell, Until, end_trial
from finetune.commands.sweep.study import Claim, SweepStudy
from finetune.commands.sweep.trial import TrialEnd, best_of_others, run_trial
from finetune.config.load_sweep import parse_sweep
from finetune.errors import ConfigError, MachineError, Stopped
from finetune.machine.signals import StopSignals

if TYPE_CHECKING:
    from finetune.config.sweep_plan import SweepTexts

INSTALL = "pip install 'finetune-vision[ray]'"
_RETRIES = 5  # of a trial whose node or process dies
_LOOK = 1.0  # seconds between two looks at what has ended


def require_ray() -> None:
    """Make sure that Ray is there.

    Raises:
        ConfigError: it is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(f"engine: ray needs ray.\nInstall it: {INSTALL}")


class SharedBoard:
    """The epochs of all trials, in an actor beside the driver; tasks have no access to the study."""

    def __init__(self, maximises: bool, known: Mapping[int, Mapping[int, float]]) -> None:
        self._maximises = maximises
        self._epochs = {number: dict(epochs) for number, epochs in known.items()}

    def report(self, number: int, epochs: Mapping[int, float]) -> None:
        """Make the epochs of a trial known."""
        self._epochs.setdefault(number, {}).update(epochs)

    def others(self, number: int, epoch: int) -> dict[int, float]:
        """Return the best so far of every other trial that has had as many epochs, by its number."""
        return best_of_others(self._epochs, number, epoch, maximises=self._maximises)

    def epochs(self, number: int) -> dict[int, float]:
        """Return what is known of a trial."""
        return self._epochs.get(number, {})


class _RemoteBoard:
    """The board as a task sees it."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def report(self, number: int, epochs: Mapping[int, float]) -> None:
        """Make the epochs of a trial known."""
        import ray

        ray.get(self._actor.report.remote(number, dict(epochs)))

    def others(self, number: int, epoch: int) -> Mapping[int, float]:
        """Return the best so far of every other trial that has had as many epochs, by its number."""
        import ray

        found: Mapping[int, float] = ray.get(self._actor.others.remote(number, epoch))
        return found


def run_remotely(
    texts: "SweepTexts", directory: str, number: int, values: Mapping[str, Any], actor: Any, cpus: int
) -> dict[str, Any]:
    """Run a trial as a task; return its end as plain values.

    Raises:
        Stopped: Ray was told to cancel it; it can be resumed.
    """
    import torch

    torch.set_num_threads(cpus)
    folder = SweepFolder(Path(directory))
    end = run_trial(parse_sweep(texts), folder, number, values, _RemoteBoard(actor))
    return asdict(end)


def work_on_ray(study: SweepStudy, until: Until, workers: int, tell: Tell) -> None:
    """Run trials as tasks of a cluster until none is left.

    Args:
        study: the study, which this process alone writes.
        until: when no trial begins any more.
        workers: trials at a time; with 1 as many as the cluster has room for.
        tell: takes each trial that has ended.

    Raises:
        Stopped: a signal came; trials at hand can be resumed.
        MachineError: there is no cluster, or it has no room for a trial.
    """
    require_ray()
    with StopSignals() as stop:
        cluster = _Cluster(study, workers)
        try:
            cluster.run(until, tell)
        except KeyboardInterrupt:
            cluster.cancel()
            if stop.received is None or stop.insisted:
                raise
            raise Stopped(f"Stopped by {stop.received}.") from None
        finally:
            cluster.leave()


class _Cluster:
    """The tasks of a sweep on a cluster."""

    def __init__(self, study: SweepStudy, workers: int) -> None:
        self._study, self._engine = study, study.plan.file.engine
        self._most = workers if workers > 1 else None
        _connect(self._engine.address)
        for name, needed in (("CPU", self._engine.cpus), ("GPU", self._engine.gpus)):
            if needed > (there := _resource(name)):
                raise MachineError(
                    f"engine: a trial needs {needed:g} {name}, and the Ray cluster has {there:g}.\n"
                    f"Lower engine.{name.lower()}s, or add nodes: ray start --address=HEAD:6379"
                )
        ray: Any = importlib.import_module("ray")  # its own types do not know what `remote` makes
        known = {record.number: dict(record.epochs) for record in study.records()}
        board = ray.remote(SharedBoard).options(num_cpus=0, scheduling_strategy=_beside_driver())
        self._board = board.remote(study.plan.maximises, known)
        self._task = ray.remote(run_remotely).options(
            num_cpus=self._engine.cpus, num_gpus=self._engine.gpus, max_retries=_RETRIES
        )
        self._running: dict[Any, Claim] = {}

    def run(self, until: Until, tell: Tell) -> None:
        """Hand out trials, and take what comes of them."""
        import ray

        failures = Failures()
        while True:
            self._hand_out(until)
            if not self._running:
                return
            ended, _ = ray.wait(list(self._running), num_returns=1, timeout=_LOOK)
            for task in ended:
                claim = self._running.pop(task)
                end = self._end_of(task)
                epochs: dict[int, float] = ray.get(self._board.epochs.remote(claim.number))
                self._study.report(claim.number, epochs)
                end_trial(self._study, claim, end)
                tell(self._study.records()[claim.number])
                failures.add(end)

    def _hand_out(self, until: Until) -> None:
        room = self._most or max(1, int(_resource("CPU") / self._engine.cpus))
        while len(self._running) < room and not until.is_over:
            claim = self._study.claim(until.trials)
            if claim is None:
                return
            directory = os.path.abspath(self._study.folder.directory)
            texts, values = self._study.plan.texts, dict(claim.values)
            task = self._task.remote(texts, directory, claim.number, values, self._board, self._engine.cpus)
            self._running[task] = claim

    def _end_of(self, task: Any) -> TrialEnd:
        import ray

        try:
            return TrialEnd(**ray.get(task))
        except (ray.exceptions.RayError, ray.exceptions.RayTaskError) as error:
            first = str(error).strip().rpartition("\n")[2]
            return TrialEnd("failed", None, {"error": f"the task was lost: {first}", "exit_code": 6})

    def cancel(self) -> None:
        """Ask all tasks to stop, and wait until they have saved."""
        import ray

        for task in self._running:
            ray.cancel(task, force=False)
        if self._running:
            ray.wait(list(self._running), num_returns=len(self._running), timeout=60)

    def leave(self) -> None:
        """Disconnect; what was started for this sweep ends with it."""
        import ray

        ray.shutdown()


def _beside_driver() -> Any:
    """Return what places an actor on the node of this process: what it knows is then lost with both alone."""
    ray: Any = importlib.import_module("ray")
    strategies: Any = importlib.import_module("ray.util.scheduling_strategies")
    node = ray.get_runtime_context().get_node_id()
    return strategies.NodeAffinitySchedulingStrategy(node_id=node, soft=False)


def _resource(name: str) -> float:
    """Return how much of a resource all nodes have together."""
    ray: Any = importlib.import_module("ray")
    return float(ray.cluster_resources().get(name, 0))


def _connect(address: str | None) -> None:
    """Connect to the cluster that is named, or start Ray on this machine.

    Raises:
        MachineError: there is no cluster at the address.
    """
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anybody
    where = address or os.environ.get("RAY_ADDRESS")
    try:
        ray.init(
            address=where,
            include_dashboard=False if where is None else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise MachineError(
            f"engine: no Ray cluster at {where}: {str(error).partition(chr(10))[0]}\n"
            "Start one: ray start --head; or leave out engine.address and RAY_ADDRESS."
        ) from None
