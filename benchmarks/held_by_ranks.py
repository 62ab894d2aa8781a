"""Count what each process of a training holds in a step; `benchmarks/devices.py memory` calls this.

    torchrun --nproc-per-node 2 benchmarks/held_by_ranks.py CONFIG.yaml OUT model.arch=resnet50 shard=weights

takes three steps of the last stage of a config as `finetune train` does, and writes `OUT.RANK`, JSON: the
bytes of weights and running statistics, of gradients, and of optimizer states when the optimizer steps, and
the highest resident memory of the process during the steps (Linux alone).
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from finetune.commands.prepare import prepare
from finetune.config.load import load_config
from finetune.display import Display
from finetune.experiment.build import build_stage_optimizer, build_step, freeze_for_stage, plan_groups
from finetune.experiment.loaders import StageLoaders
from finetune.machine.divided import rows_of
from finetune.machine.launched import launched
from finetune.machine.meeting import end_ranks, start_ranks
from finetune.machine.ranks import ALONE
from finetune.training.inference import share_of

STEPS = 3


def bytes_of(tensors: Iterable[Tensor | None]) -> int:
    """Count the bytes of tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor is not None)


def highest_memory(*, forget: bool = False) -> int:
    """Return the highest resident memory of this process in bytes, or begin to measure it anew."""
    if forget:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def main(path: str, out: str, *overrides: str) -> None:
    """Take the steps, and write what was counted."""
    one, config = launched(), load_config(Path(path), overrides)
    ranks = ALONE if one is None else start_ranks(one, config.device)
    experiment = prepare(config, Display(sys.stderr, quiet=True), ranks)
    config, model, number = experiment.config, experiment.model, len(config.stages) - 1
    freeze_for_stage(config.stages[number], model)
    optimizer = build_stage_optimizer(config, plan_groups(config, config.stages[number], model), ranks)
    loaders = StageLoaders(experiment).of_stage(number)
    step = build_step(experiment, optimizer, number, share=share_of(loaders.train))
    held: dict[str, int] = {}
    take = optimizer.step

    def count_and_step(*arguments: Any) -> Any:
        held["gradients"] = bytes_of(gradient for _, gradient in step.tensors.gradients())
        return take(*arguments)

    optimizer.step = count_and_step  # type: ignore[method-assign]
    loaders.train.sampler.start_epoch(number, 0)
    highest_memory(forget=True)
    for batch, (*inputs, targets) in zip(range(STEPS), loaders.train, strict=False):
        step(inputs, targets, epoch=0, batch=batch, rates=step.group_rates, momentum=0.9)
    held["weights"] = bytes_of(map(rows_of, model.state_dict().values()))
    held["states"] = bytes_of(value for state in optimizer.state.values() for value in state.values())
    held["resident"] = highest_memory()
    Path(f"{out}.{ranks.rank}").write_text(json.dumps(held))
    if one is not None:
        end_ranks(ranks, 0, "", None)


if __name__ == "__main__":
    main(*sys.argv[1:])
