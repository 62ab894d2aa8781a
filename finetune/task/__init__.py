"""What is asked of each image, one class or several, and all that follows from it.

`SingleLabel` and `MultiLabel` hold what differs between the two: targets, loss, guessing, probabilities,
scores, what a config may say. Who has a `Task` does not ask which of them it is.
"""

from finetune.task.multi_label import LABEL_JOINT, MultiLabel
from finetune.task.single_label import SingleLabel
from finetune.task.task import Baseline, Task

__all__ = ["LABEL_JOINT", "Baseline", "MultiLabel", "SingleLabel", "Task", "task_of"]


def task_of(multilabel: bool) -> Task:
    """Return the task that a table or a file of a run is about."""
    return MultiLabel() if multilabel else SingleLabel()
