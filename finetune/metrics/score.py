"""The scores of a classifier, whichever its task, and back from JSON."""

from collections.abc import Mapping
from typing import Any

from finetune.metrics.multi_label import MultiLabelScores, multi_label_scores_from_dict
from finetune.metrics.single_label import SingleLabelScores, single_label_scores_from_dict

Scores = SingleLabelScores | MultiLabelScores


def scores_from_dict(values: Mapping[str, Any]) -> Scores:
    """Return the scores that `to_dict` wrote, from JSON."""
    one = "confusion_matrix" in values or "confusions" in values
    return single_label_scores_from_dict(values) if one else multi_label_scores_from_dict(values)
