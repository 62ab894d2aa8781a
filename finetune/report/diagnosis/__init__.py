"""What the curves of a run say went wrong, and which key of the config to turn; nothing where all is well.

Everything is a function of the run's record: the rows of history.csv and the steps of events.jsonl.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from finetune.report.diagnosis.curves import Part, StageCurves
from finetune.report.diagnosis.rules import Finding, Knobs, end_finding, stage_finding

__all__ = ["Finding", "Knobs", "Part", "StageCurves", "diagnose", "steps_by_stage"]


def diagnose(stages: Sequence[StageCurves], knobs: Knobs) -> list[Finding]:
    """Read the curves of a whole run, stage by stage.

    A stage gets one finding at most, its most specific one. How well it all ended is asked of the last stage,
    since the earlier ones are trained on by it.
    """
    findings = [
        found
        for before, stage in zip((None, *stages), stages, strict=False)
        if (found := stage_finding(stage, before, knobs))
    ]
    explained = any(found.stage == stages[-1].name for found in findings)
    ending = end_finding(stages, knobs, explained=explained)
    return findings if ending is None else [*findings, ending]


def steps_by_stage(events: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Return the optimizer steps of a run's events, by stage, in order; of repeated ones the last counts."""
    steps: dict[str, dict[int, Mapping[str, Any]]] = {}
    for event in events:
        if event.get("event") == "step":
            steps.setdefault(event["stage"], {})[event["step"]] = event
    return {stage: [by_number[number] for number in sorted(by_number)] for stage, by_number in steps.items()}
