"""`finetune.Run`: what a training left in its run directory."""

import os
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

from finetune.api.model import Model, load
from finetune.api.terms import python_terms
from finetune.choices import Split
from finetune.config.config import Config
from finetune.config.load import parse_config
from finetune.data.table.frame import to_frame
from finetune.metrics.score import Scores, scores_from_dict
from finetune.runs import CONFIG, open_run
from finetune.runs.history import EpochRow, read_history
from finetune.runs.records import read_report, read_status
from finetune.text import counted

_SPLITS: tuple[Split, ...] = ("train", "val", "test")


class Run(os.PathLike[str]):
    """A run directory, finished or as far as it has come. Whatever takes the path of a run takes this too."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        """Open a run directory.

        Raises:
            RunError: it is not one.
        """
        self._files = open_run(Path(directory))
        with python_terms():
            read_status(self._files)

    @property
    def directory(self) -> Path:
        """The directory; all files in it are listed in the README."""
        return self._files.directory

    @property
    def status(self) -> str:
        """How it stands or ended: running, done, stopped, failed, diverged or interrupted."""
        return str(read_status(self._files)["state"])

    @property
    def config(self) -> Config:
        """The resolved config, with the rates that were used."""
        return parse_config(self._files.read_config(), str(self.directory / CONFIG))

    @property
    def epochs(self) -> list[EpochRow]:
        """The losses and scores of each epoch so far, in order."""
        return read_history(self._files)

    @property
    def history(self) -> Any:
        """The epochs as a pandas DataFrame, or as a list of dictionaries where pandas is not installed."""
        return to_frame([row.to_dict() for row in self.epochs])

    @property
    def report(self) -> dict[str, Any]:
        """The content of report.json.

        Raises:
            RunError: the run is not finished.
        """
        with python_terms():
            return read_report(self._files)

    @property
    def scores(self) -> dict[Split, Scores]:
        """The scores of the best model on the `val` images, and on the `test` images if there are some.

        Raises:
            RunError: the run is not finished.
        """
        report = self.report
        return {split: scores_from_dict(report[split]) for split in _SPLITS if split in report}

    @property
    def best(self) -> EpochRow:
        """The epoch whose model was kept.

        Raises:
            RunError: the run is not finished.
        """
        return EpochRow.from_dict(self.report["best"])

    @cached_property
    def model(self) -> Model:
        """The best model, loaded onto the device that `finetune.load` chooses.

        Raises:
            RunError: the run has no model yet.
            CheckpointError: its files are damaged.
        """
        return load(self)

    def __fspath__(self) -> str:
        return os.fspath(self.directory)

    def __repr__(self) -> str:
        return f"<finetune.Run {self.directory}: {self._summary()}>"

    def _summary(self) -> str:
        if self.status != "done":
            return f"{self.status}, {counted(len(self.epochs), 'epoch')}"
        best = self.best
        metric = str(self.report["monitor"])
        return f"{metric} {best.value(metric):.4f} (stage {best.stage}, epoch {best.epoch})"

    def _repr_html_(self) -> str:
        rows = [row.to_dict() for row in self.epochs]
        return f"<p><b>{escape(str(self.directory))}</b>: {escape(self._summary())}</p>{_html_table(rows)}"


def _html_table(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in rows[0])
    body = "".join(f"<tr>{''.join(map(_html_cell, row.values()))}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _html_cell(value: object) -> str:
    return f"<td>{value:.4f}</td>" if isinstance(value, float) else f"<td>{escape(str(value))}</td>"
