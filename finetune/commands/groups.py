"""The story of `finetune groups`: what a model is made of."""

from finetune.config.config import Config
from finetune.experiment.build import batch_norm_line, plan_groups
from finetune.experiment.model import build_model
from finetune.experiment.read_data import metadata_lines, read_index
from finetune.model.units import has_statistics
from finetune.notes import Note
from finetune.optim.param_groups import GroupPlan


def describe_groups(config: Config, stage_name: str | None) -> tuple[list[GroupPlan], list[Note]]:
    """Return each layer group's part in a stage of a config, the last where none is named; and what to note.

    The model is built without its pretrained weights, which change no shape: nothing is downloaded.

    Raises:
        ConfigError: no such stage, or a model that cannot be built.
        DataError: no data, so that the number of classes is not known.
    """
    stage = config.stages[config.find_stage(stage_name, default=-1)]
    index = read_index(config)
    notes, about_norms = metadata_lines(index), batch_norm_line(config, stage)
    untrained = config.model.model_copy(update={"weights": "none"})
    config = config.model_copy(update={"model": untrained})
    model = build_model(config, index)
    if any(map(has_statistics, model.backbone.modules())):
        notes.append(about_norms)
    return plan_groups(config, stage, model), [Note(line) for line in notes]
