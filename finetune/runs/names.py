"""What the files of a run directory are called."""

from finetune.model.weights import RUN_MODEL, RUN_WEIGHTS

MODEL = RUN_MODEL
WEIGHTS = RUN_WEIGHTS
STARTED = "started.json"
CONFIG = "config.yaml"
CLASSES = "classes.json"
SPLIT = "split.csv"
FILES = "files.csv"
HISTORY = "history.csv"
EVENTS = "events.jsonl"
STATUS = "status.json"
CHECKPOINTS = "checkpoints"
REPORT = "report.json"
REPORT_PAGE = "report.html"
LR_FIND = "lr_find-{stage}.json"
LR_FIND_PLOT = "lr_find-{stage}.png"
LOCK = ".lock"
