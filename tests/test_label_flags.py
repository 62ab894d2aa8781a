"""Flags of cleanlab, and how it is asked for where it is not installed."""

import importlib.util

import pytest
import torch
from cleanlab.filter import find_label_issues

from finetune.analysis.label_flags import INSTALL, flag_labels, require_cleanlab
from finetune.errors import ConfigError


def sure_answers(n=60, classes=3):
    """Return answers that are right and sure, and the labels."""
    targets = torch.nn.functional.one_hot(torch.arange(n) % classes, classes).float()
    return targets.double() * 0.7 + 0.1, targets


def test_flags_are_cleanlabs():
    probabilities, targets = sure_answers()
    targets[5] = targets[6]
    targets[20] = targets[21]
    flagged = flag_labels(probabilities, targets, several=False)
    assert flagged.nonzero()[:, 0].tolist() == [5, 20]
    theirs = find_label_issues(
        targets.argmax(1).numpy(), probabilities.numpy(), filter_by="confident_learning"
    )
    assert flagged.tolist() == theirs.tolist()


def test_a_class_that_is_missing_or_too_many_is_flagged_where_several_may_be():
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(80, 3, generator=generator) > 0.5).float()
    probabilities = targets.double() * 0.8 + 0.1
    targets[9, 0] = 1 - targets[9, 0]
    targets[40, 2] = 1 - targets[40, 2]
    assert flag_labels(probabilities, targets, several=True).nonzero()[:, 0].tolist() == [9, 40]


def test_a_class_that_every_image_has_is_passed_over():
    targets = torch.ones(20, 2)
    targets[:10, 1] = 0
    assert not flag_labels(targets.double() * 0.8 + 0.1, targets, several=True).any()


def test_without_cleanlab_it_is_asked_for(monkeypatch):
    require_cleanlab()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs cleanlab") as error:
        require_cleanlab()
    assert str(error.value).splitlines()[1] == f"Install it: {INSTALL}"
