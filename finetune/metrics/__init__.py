"""Scores of a classifier, as pure functions of its outputs."""
