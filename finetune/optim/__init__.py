"""Optimizers, learning rates and parameter groups."""
