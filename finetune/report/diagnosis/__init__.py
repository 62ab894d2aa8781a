"""The diagnosis of a run: what its curves show went wrong, and which key of the config to change.

Everything is a function of the run's record: the rows of history.csv, the steps of events.jsonl, and how the
best model divides the validation images among the classes. Where all is well there is nothing to say.
"""

from collections.abc import Sequence

from finetune.report.diagnosis.curves import Part, StageCurves
from finetune.report.diagnosis.finding import Finding, Knobs, Predictions
from finetune.report.diagnosis.run_rules import collapse_finding, end_finding, gain_finding
from finetune.report.diagnosis.stage_rules import stage_finding

__all__ = ["Finding", "Knobs", "Part", "Predictions", "StageCurves", "diagnose"]


def diagnose(
    stages: Sequence[StageCurves], knobs: Knobs, predictions: Predictions | None = None
) -> list[Finding]:
    """Read the curves of a whole run, stage by stage.

    A stage gets one finding at most, its most specific one. How it all ended is judged by the last stage,
    since the earlier ones are trained further in it. A collapsed model explains every loss that did not fall.

    Args:
        stages: all stages, in order; at least one.
        knobs: the task and the config.
        predictions: of the best model on the validation images; None where an image may have several classes.
    """
    findings = [
        found
        for before, stage in zip((None, *stages), stages, strict=False)
        if (found := stage_finding(stage, before, knobs, last=stage is stages[-1]))
    ]
    explained = any(found.stage == stages[-1].name for found in findings)
    if predictions is not None:
        too_high = [found for found in findings if found.trouble == "rate too high"]
        lower = any(found.stage == stages[-1].name for found in too_high)
        collapsed = collapse_finding(predictions, stages[-1], knobs, explained=lower)
        if collapsed is not None:
            return [*too_high, collapsed]
    ending = end_finding(stages, knobs, explained=explained)
    if ending is None and not findings:
        ending = gain_finding(stages, knobs)
    return findings if ending is None else [*findings, ending]
