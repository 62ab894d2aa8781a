"""What a run has left, without what is different each time, to compare two runs of one training."""

import csv
import json
from pathlib import Path
from typing import Any

from finetune.runs.checksummed import load_checksummed

DIFFERENT = ("seconds", "images_per_second", "run_dir")
"""keys of what is different each time"""


def result_of(run: Path) -> dict[str, Any]:
    """Return everything that a run leaves, but for times and the name of its directory."""
    with open(run / "history.csv") as file:
        history = [timeless(row) for row in csv.DictReader(file)]
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    tensors, _ = load_checksummed(max((run / "checkpoints").glob("*.safetensors")))
    found = run / "lr_find-unfrozen.json"
    return {
        "best weights": (run / "model.safetensors").read_bytes(),
        "model.json": timeless(json.loads((run / "model.json").read_text())),
        "last weights": {name: tensor.numpy().tobytes() for name, tensor in tensors.items()},
        "history": history,
        "events": [timeless(event) for event in events if event["event"] != "resume"],
        "report": timeless(json.loads((run / "report.json").read_text())),
        "config": (run / "config.yaml").read_text(),
        "found": timeless(json.loads(found.read_text())) if found.exists() else None,
    }


def timeless(value: Any) -> Any:
    """Return JSON without the keys that are `DIFFERENT`."""
    if isinstance(value, dict):
        return {key: timeless(inner) for key, inner in value.items() if key not in DIFFERENT}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value
