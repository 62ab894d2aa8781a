"""Find a learning rate: sweep it, read the curve, and race what the curve suggests."""

from finetune.finder.features import compute_features, feature_batches
from finetune.finder.found import Found, decide
from finetune.finder.heuristics import ORDER, Curve, Heuristic, Suggestion, choose, divergence, suggest
from finetune.finder.race import Racer, line_up, race, winner
from finetune.finder.range_test import Range, mean_curve, range_test
from finetune.finder.trial import Trial, no_trace

__all__ = [
    "ORDER",
    "Curve",
    "Found",
    "Heuristic",
    "Racer",
    "Range",
    "Suggestion",
    "Trial",
    "choose",
    "compute_features",
    "decide",
    "divergence",
    "feature_batches",
    "line_up",
    "mean_curve",
    "no_trace",
    "race",
    "range_test",
    "suggest",
    "winner",
]
