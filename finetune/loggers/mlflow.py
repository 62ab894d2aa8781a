"""MLflow: a run of the experiment `finetune`, in the store that MLflow itself would take."""

import logging
import os
import re
import time
from collections.abc import Sequence
from typing import Any

from finetune.loggers.logger import Marks, RunFacts
from finetune.loggers.records import Record

_ID = "finetune.id"  # the tag by which a later process finds the run
_MOST_METRICS = 1000  # of one call
_MOST_PARAMS = 100
_LONGEST_PARAM = 500
_STATES = {"done": "FINISHED", "stopped": "KILLED", "interrupted": "KILLED"}


class MlflowLogger:
    """Logs to a run through MLflow's client; each process goes on with the same run."""

    def __init__(self) -> None:
        self.errors: tuple[type[Exception], ...] = ()
        self._client: Any = None
        self._run = ""

    def open(self, facts: RunFacts) -> Marks:
        """Find the run, or begin it."""
        # A server that does not answer is asked again for minutes, which the training would wait for.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        for name in ("mlflow", "alembic"):  # say at length how they make a database
            logging.getLogger(name).setLevel(logging.WARNING)
        self.errors = (MlflowException,)
        self._client = client = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "finetune")
        found = client.get_experiment_by_name(name)
        experiment = client.create_experiment(name) if found is None else found.experiment_id
        runs = client.search_runs([experiment], filter_string=f"tags.`{_ID}` = '{facts.id}'")
        if not runs:
            self._begin(experiment, facts)
            return {}
        self._run = runs[0].info.run_id
        client.update_run(self._run, status="RUNNING")
        names = client.get_run(self._run).data.metrics
        return {name: max(one.step for one in client.get_metric_history(self._run, name)) for name in names}

    def _begin(self, experiment: str, facts: RunFacts) -> None:
        from mlflow.entities import Param

        tags = {_ID: facts.id, "finetune.run_dir": str(facts.directory.absolute())}
        self._run = self._client.create_run(experiment, run_name=facts.name, tags=tags).info.run_id
        params = [Param(_allowed(key), str(value)[:_LONGEST_PARAM]) for key, value in facts.config.items()]
        for start in range(0, len(params), _MOST_PARAMS):
            self._client.log_batch(self._run, params=params[start : start + _MOST_PARAMS])

    def write(self, records: Sequence[Record]) -> None:
        """Log metrics, many at a time; a database takes all of them or none."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [
            Metric(_allowed(name), value, now, record.step)
            for record in records
            for name, value in record.values.items()
        ]
        for start in range(0, len(metrics), _MOST_METRICS):
            self._client.log_batch(self._run, metrics=metrics[start : start + _MOST_METRICS])

    def close(self, state: str) -> None:
        """Say how the run has ended."""
        self._client.set_terminated(self._run, _STATES.get(state, "FAILED"))


def _allowed(name: str) -> str:
    """Return a name of the characters that MLflow takes."""
    return re.sub(r"[^\w\-. :/]", "_", name)
