"""The run directory: what its files are called, how they are written, and how they are read back.

Nothing in it executes code when it is loaded: safetensors, JSON, CSV and YAML only.
"""

from finetune.runs.checkpoints import CheckpointFolder, Stored
from finetune.runs.directory import Run
from finetune.runs.names import CONFIG, EVENTS, HISTORY, MODEL, REPORT, SPLIT, STARTED, STATUS, WEIGHTS
from finetune.runs.opening import create_run, find_run, open_run, resume_run

__all__ = [
    "CONFIG",
    "EVENTS",
    "HISTORY",
    "MODEL",
    "REPORT",
    "SPLIT",
    "STARTED",
    "STATUS",
    "WEIGHTS",
    "CheckpointFolder",
    "Run",
    "Stored",
    "create_run",
    "find_run",
    "open_run",
    "resume_run",
]
