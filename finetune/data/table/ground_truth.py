"""Read the lines of a manifest of SageMaker Ground Truth: a job's answer beside what its numbers mean."""

from collections.abc import Mapping
from typing import Any

_METADATA = "-metadata"


def answers_of(row: Any) -> Any:
    """Return a line with the names of classes in place of their numbers, without what else is said of them.

    A line that is none of a manifest is returned as it is. Of boxes the classes are returned.
    """
    if not isinstance(row, dict) or "source-ref" not in row:
        return row
    jobs = [key.removesuffix(_METADATA) for key in row if key.endswith(_METADATA) and _names(row[key])]
    if not jobs:
        return row
    kept = {key: value for key, value in row.items() if not key.endswith(_METADATA)}
    return {**kept, **{job: _answer(row.get(job), row[job + _METADATA]) for job in jobs if job in row}}


def _names(metadata: Any) -> bool:
    return isinstance(metadata, dict) and bool({"class-name", "class-map"} & metadata.keys())


def _answer(answer: Any, metadata: Mapping[str, Any]) -> Any:
    if isinstance(name := metadata.get("class-name"), str):
        return name
    if isinstance(answer, dict) and isinstance(boxes := answer.get("annotations"), list):
        answer = list(dict.fromkeys(box.get("class_id") for box in boxes if isinstance(box, dict)))
    names = metadata.get("class-map")
    if not isinstance(answer, list) or not isinstance(names, dict):
        return answer
    return [names.get(str(number), str(number)) for number in answer]
