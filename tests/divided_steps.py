"""Steps of networks whose weights ranks divide, each in its own process, and of one process that has all."""

import multiprocessing
import os
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from rank_process import free_port
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from finetune.data.loading.share import BatchShare
from finetune.errors import ConfigError
from finetune.machine.ranks import ALONE, Ranks
from finetune.model import HeadSpec, ModelSpec, build_classifier
from finetune.optim.build import build_optimizer
from finetune.optim.learning_rates import LearningRate
from finetune.optim.param_groups import RateRule, optimizer_groups, plan_stage
from finetune.training.averaging import WeightAverage
from finetune.training.inference import compute_logits
from finetune.training.mix import Mix
from finetune.training.sharding import divide_weights
from finetune.training.state import restore_average, restore_model, restore_optimizer, training_tensors
from finetune.training.step import StepOptions, TrainingStep

CPU = torch.device("cpu")
IMAGES, CLASSES = 8, 3


@dataclass(frozen=True)
class Case:
    """A training of a few steps in float64, from random weights."""

    arch: str = "resnet18"
    optimizer: str = "momentum"
    trainable: int = 3
    """Layer groups that learn."""
    clip_norm: float | None = None
    parts: int = 1
    mixup: float = 0.0
    steps: int = 2
    precision: str = "float32"
    double: bool = True
    saved: dict = field(default_factory=dict)
    """What it goes on from."""
    first: int = 0
    """Number of its first step."""
    image_size: int = 32
    divided: bool = True
    """Whether several ranks divide the weights."""


def build_model(case):
    spec = ModelSpec(case.arch, CLASSES, HeadSpec((8,), 0.2), image_size=case.image_size)
    model = build_classifier(spec, weights="none", seed=3)
    model.set_precision(case.precision)
    if case.double:
        head = model.double().head
        head.forward = lambda features: head.layers(head.pooled(features))  # its own is in float32
    return model


def steps_of(case, ranks=ALONE):
    """Return what a checkpoint holds after the steps of a case, and what was measured, by name."""
    torch.set_num_threads(1)
    model = build_model(case)
    if case.divided and not ranks.alone:
        divide_weights(model, ranks, CPU)
    model.freeze(case.trainable, batch_norm="train" if case.trainable == 3 else "auto")
    plans = plan_stage(
        model.layer_groups,
        trainable=case.trainable,
        batch_norm="auto",
        lr=LearningRate(1e-2),
        rule=RateRule(3.0, "geometric", 0.01, decay_bias_and_norm=False),
    )
    groups = optimizer_groups(plans)
    optimizer = build_optimizer(groups, name=case.optimizer, decay="decoupled", ranks=ranks)
    mix = Mix(mixup=case.mixup, cutmix=0, classes=CLASSES) if case.mixup else None
    share = None if ranks.alone else BatchShare(ranks, IMAGES, case.parts, with_partner=mix is not None)
    options = StepOptions(case.clip_norm, IMAGES // case.parts if case.parts > 1 else None, mix, share)
    if case.saved:
        restore_model(model, case.saved)
        restore_optimizer(optimizer, case.saved)
    step = TrainingStep(model, optimizer, loss=nn.CrossEntropyLoss(), seed=1, stage=0, options=options)
    average = WeightAverage(step.tensors.moving, 0.9)
    restore_average(average, case.saved)
    images, targets = batches(case)
    rows = slice(None) if share is None else share.rows()
    measured = []
    for batch in range(case.first, case.first + case.steps):
        weights = step.tensors.norms(step.tensors.moving)
        rates = list(step.group_rates)
        outcome = step(
            [images[batch][rows]], targets[batch][rows], epoch=0, batch=batch, rates=rates, momentum=0.9
        )
        average.update(batch)
        measured += [outcome.loss[None].double(), weights.double(), outcome.gradient_norms.double()]
    saved = training_tensors(model, optimizer, average, ranks=ranks)
    found = {name: tensor.clone() for name, tensor in saved.items()}
    found["measured"] = torch.cat(measured)
    average.put_into_model()
    found["logits"], _ = compute_logits(model, [(images[0], targets[0])], device=CPU)
    found["held"] = torch.tensor(held_bytes(step, optimizer))
    return found


def batches(case):
    generator = torch.Generator().manual_seed(7)
    images = 255 * torch.rand(8, IMAGES, 3, case.image_size, case.image_size, generator=generator)
    targets = torch.randint(CLASSES, (8, IMAGES), generator=generator)
    return (images.double() if case.double else images), targets


def held_bytes(step, optimizer):
    """Count the bytes of weights and of optimizer states that one process holds."""
    weights = [tensor for _, tensor in step.tensors.learning]
    states = [value for values in optimizer.state.values() for value in values.values()]
    return [sum(tensor.numel() * tensor.element_size() for tensor in some) for some in (weights, states)]


def refused(case, ranks):
    """Divide a network that reads the weights of a block; return what is said about it, as bytes."""
    model = build_model(case)
    first = model.backbone[0]
    model.backbone.forward = lambda images: functional.conv2d(images, first.weight)
    try:
        divide_weights(model, ranks, CPU)
    except ConfigError as error:
        return {"text": torch.tensor(list(str(error).encode()))}
    return {}


def on_ranks(size, function, cases, folder):
    """Return what rank 0 gets from calling a function with each case, all ranks at the same time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["divided_steps"])
    port = free_port()
    processes = [
        context.Process(target=_rank, args=(rank, size, port, function, cases, folder))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
    alive = [process for process in processes if process.is_alive()]
    for process in alive:
        process.kill()
    assert not alive
    assert [process.exitcode for process in processes] == [0] * size
    return [load_file(folder / f"{number}.safetensors") for number in range(len(cases))]


def _rank(rank, size, port, function, cases, folder):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=size)
    for number, case in enumerate(cases):
        found = function(case, Ranks(rank, size))
        if rank == 0:
            save_file(
                {name: tensor.contiguous() for name, tensor in found.items()},
                folder / f"{number}.safetensors",
            )
    dist.destroy_process_group()
