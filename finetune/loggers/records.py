"""Turn the events of a training into numbers by name and step, as every logger takes them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Record(NamedTuple):
    """What is known of one step."""

    step: int
    """optimizer steps of the whole training, all stages together, from 1; 0 before the first"""
    values: dict[str, float]


class EventReader:
    """Reads the events of one training in their order, those of earlier processes first."""

    def __init__(self) -> None:
        self._offsets: dict[str, int] = {}
        """steps before each stage"""
        self._ends: dict[tuple[str, int], int] = {}
        """the last step of each epoch of a stage"""
        self._last = 0

    def read(self, event: Mapping[str, Any]) -> list[Record]:
        """Return what an event says in numbers; nothing for most kinds."""
        match event.get("event"):
            case "step":
                return [self._step(event)]
            case "epoch":
                return [self._epoch(event)]
            case "lr_find" if event.get("lr") is not None:
                return [Record(self._last, {"lr_find/lr": event["lr"]})]
            case "first_score":
                scores = {key: value for key, value in event.items() if key.startswith("val_")}
                return [Record(self._last, {f"first_score/{key}": value for key, value in scores.items()})]
            case "best":
                return [Record(self._last, _numbers("best", event))]
            case _:
                return []

    def _step(self, event: Mapping[str, Any]) -> Record:
        stage = event["stage"]
        self._last = self._offsets.setdefault(stage, self._last) + event["step"]
        self._ends[stage, event["epoch"]] = self._last
        values = {"train/loss": event["loss"], "train/lr": event["lrs"][-1]}
        values |= {f"train/lr/{name}": lr for name, lr in _rates(event["lrs"], list(event["grad_norm"]))}
        values |= {f"train/grad_norm/{name}": norm for name, norm in event["grad_norm"].items()}
        for key in ("momentum", "clip"):
            if event.get(key) is not None:
                values[f"train/{key}"] = event[key]
        return Record(self._last, values)

    def _epoch(self, event: Mapping[str, Any]) -> Record:
        step = self._ends.get((event["stage"], event["epoch"]), self._last)
        return Record(step, _numbers("epoch", event))


def _rates(lrs: Sequence[float], names: Sequence[str]) -> list[tuple[str, float]]:
    """Return the rate of each layer group, that of both its halves, with weight decay and without."""
    halves, rest = divmod(len(lrs), len(names) or 1)
    return [] if rest or len(names) < 2 else list(zip(names, lrs[::halves], strict=True))


def _numbers(prefix: str, event: Mapping[str, Any]) -> dict[str, float]:
    numbers = {key: value for key, value in event.items() if isinstance(value, int | float)}
    return {f"{prefix}/{key}": value for key, value in numbers.items()}
