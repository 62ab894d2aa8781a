"""What a training asks of its device: nothing that a GPU would have to be waited for, and no more than today.

Counted on a CPU: calls that read a value or copy to another device where Python makes them, operations where
torch dispatches them. What a pass costs beside its steps is left out by comparing two passes.
"""

from collections import Counter
from contextlib import nullcontext
from copy import deepcopy

import pytest
import torch
from conftest import some_quick
from one_batch import OneBatch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from finetune.data.loading.draws import DrawnBatch, device_transform, pack
from finetune.lr_finder.sweep import Range, range_test
from finetune.lr_finder.trial import Trial
from finetune.model import HeadSpec, ModelSpec, build_classifier
from finetune.model.preprocessing import Preprocessing
from finetune.optim.build import build_optimizer
from finetune.optim.learning_rates import parse_lr
from finetune.optim.param_groups import RateRule, optimizer_groups, plan_stage
from finetune.optim.schedule import OneCycle
from finetune.task import SingleLabel
from finetune.training.averaging import WeightAverage
from finetune.training.events import START, Hooks, Loaders
from finetune.training.inference import compute_logits
from finetune.training.loop import fit_one_cycle
from finetune.training.mix import Mix
from finetune.training.step import StepOptions, TrainingStep

CPU, META, CLASSES = torch.device("cpu"), torch.device("meta"), 3
RULE = RateRule(divisor=3.0, spacing="geometric", weight_decay=0.01, decay_bias_and_norm=False)
SILENT = Hooks(step=lambda step: None, epoch=lambda epoch: None, val_batch=lambda done, total: None)

# Methods that hand Python a value of a tensor, or that need one to know how much memory to ask for.
WAITS = {
    *("item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__"),
    *("nonzero", "unique", "masked_select", "equal", "allclose"),
}


class Spy(TorchFunctionMode):
    """Counts operations, and by name all calls that wait for a device; values, copies, rows by a list."""

    def __init__(self):
        super().__init__()
        self.operations, self.waits = Counter(), Counter()
        self._dispatched = _Dispatched(self.operations)

    def __enter__(self):
        self._dispatched.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._dispatched.__exit__(*error)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name, kwargs = getattr(function, "__name__", ""), kwargs or {}
        if name in WAITS:
            self.waits[name] += 1
        moves = name == "to" and any(isinstance(value, torch.device | str) for value in args[1:])
        if moves and not kwargs.get("non_blocking"):
            self.waits["to"] += 1
        if name == "__getitem__" and isinstance(args[1], list):
            self.waits["[list]"] += 1  # it is copied to the device
        return function(*args, **kwargs)


class _Dispatched(TorchDispatchMode):
    def __init__(self, operations):
        super().__init__()
        self._operations = operations

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self._operations[str(function)] += 1
        return function(*args, **(kwargs or {}))


def per_step(run):
    """Return the operations and the calls that wait in one of the steps of `run(number of steps)`."""
    run(2)  # what is built once, such as the optimizer's state
    few, many = Spy(), Spy()
    with few:
        run(2)
    with many:
        run(3)
    return (many.operations - few.operations).total(), dict(many.waits - few.waits)


def repeated(number, device=CPU):
    """Return one small batch that is shown so often."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return OneBatch(images.to(device), (torch.arange(4) % CLASSES).to(device), number)


@pytest.fixture(scope="module")
def model():
    spec = ModelSpec("shufflenet_v2_x0_5", CLASSES, head=HeadSpec(), image_size=32)
    return build_classifier(spec, weights="none", seed=0)


def stage_optimizer(model, trainable, name="adam"):
    model.freeze(trainable)
    plans = plan_stage(
        model.layer_groups, trainable=trainable, batch_norm="auto", lr=parse_lr(1e-3), rule=RULE
    )
    return build_optimizer(optimizer_groups(plans), name=name, decay="decoupled")


def stage_step(model, trainable, name="adam", **options):
    optimizer = stage_optimizer(model, trainable, name)
    return TrainingStep(
        model, optimizer, loss=nn.CrossEntropyLoss(), seed=0, stage=0, options=StepOptions(**options)
    )


def stage_of(step, average=None):
    """Return what trains a stage of any number of steps."""

    def run(steps):
        loaders = Loaders(repeated(steps), repeated(1), CPU)
        options = {"epochs": 1, "cycle": OneCycle(), "hooks": SILENT, "reached": START, "average": average}
        fit_one_cycle(step, loaders, **options)

    return run


# What a bare loop dispatches for the same step, and what ours may add to it: norms, their late reading.
MORE = 12


def bare(step):
    """Return what takes steps without anything around them."""
    images, targets = next(iter(repeated(1)))

    def run(steps):
        step.module.train()
        for _ in range(steps):
            step.loss(step.module(images), targets).backward()
            step.optimizer.step()
            step.optimizer.zero_grad()

    return run


@pytest.mark.parametrize("trainable", [1, 3], ids=["frozen", "unfrozen"])
def test_a_step_of_a_stage_waits_for_nothing_but_the_numbers_of_the_step_before(model, trainable):
    step = stage_step(model, trainable)
    least, _ = per_step(bare(step))
    operations, waits = per_step(stage_of(step))
    assert waits == {"tolist": 1}
    assert least < operations <= least + MORE


def test_an_average_and_clipping_wait_for_nothing(model):
    step = stage_step(model, 3, clip_norm=1.0)
    _, waits = per_step(stage_of(step, WeightAverage(step.tensors.moving, 0.9)))
    assert waits == {"tolist": 1, "to": 1}  # torch puts the factor of clipping where it is


def make_trial(model, trainable):
    optimizer = stage_optimizer(model, trainable)
    return Trial(
        module=model,
        train=repeated(100),
        val=repeated(1),
        new_optimizer=lambda: optimizer,
        loss=nn.CrossEntropyLoss(),
        judge=SingleLabel().judge,
        device=CPU,
        seed=0,
        stage=0,
        options=StepOptions(),
    )


@pytest.mark.parametrize("trainable", [1, 3], ids=["frozen", "unfrozen"])
def test_a_step_of_a_range_test_or_a_race_waits_for_nothing_but_a_loss(model, trainable):
    """Both take the steps of a trial; on a GPU their losses are read two steps late."""
    trial = make_trial(model, trainable)
    least, _ = per_step(bare(stage_step(model, trainable)))

    def sweep(steps):
        range_test(trial, Range(start=1e-9, end=1e-8, steps=steps), momentum=None)

    operations, waits = per_step(sweep)
    assert waits == {"tolist": 1}
    assert operations <= least + MORE


def test_a_batch_of_inference_waits_for_nothing(model):
    def bare_inference(batches):
        with torch.inference_mode():
            for images, _ in repeated(batches):
                model.eval()(images)

    least, _ = per_step(bare_inference)
    operations, waits = per_step(lambda batches: compute_logits(model, repeated(batches), device=CPU))
    assert not waits
    assert operations <= least + 2


@pytest.fixture(params=["light", "standard"])
def varied(request):
    """Return what varies a batch on the device, and a batch of images of two sizes."""
    preprocessing = Preprocessing(32, 36, (0.5,) * 3, (0.25,) * 3, "bilinear")
    transform = device_transform(request.param, preprocessing)
    generator = torch.Generator().manual_seed(0)
    shapes = [(40, 50), (70, 30), (40, 50), (33, 90)]
    images = [torch.randint(0, 256, (3, *s), dtype=torch.uint8, generator=generator) for s in shapes]
    return transform.halves.finish, pack([transform(image) for image in images])


def test_to_vary_a_batch_on_the_device_waits_for_nothing(varied):
    finish, batch = varied
    spy = Spy()
    with spy:
        images = finish(batch.to(META, non_blocking=True))
    assert not spy.waits
    assert (images.device, images.dtype, images.shape) == (META, torch.uint8, (4, 3, 32, 32))


def test_to_vary_a_batch_takes_operations_by_groups_and_not_by_images(varied):
    finish, batch = varied
    counts = []
    for times in (1, 5):
        rows = [group.repeat(times, 1, 1, 1) for group in batch.groups]
        spy = Spy()
        with spy:
            finish(DrawnBatch(rows, batch.numbers.repeat(times, 1), batch.order.repeat(times)))
        counts.append(spy.operations.total())
    assert counts[0] == counts[1]


def test_the_spy_sees_what_waits():
    spy, values = Spy(), torch.arange(3.0)
    with spy:
        float(values[0])
        values.to(META)
        values[[0, 1]]
        values.to(CPU, non_blocking=True)
        bool(values.isfinite().all())
    assert spy.waits == {"__float__": 1, "to": 1, "[list]": 1, "__bool__": 1}


@pytest.fixture
def on_meta(model, monkeypatch):
    """Return the model where no tensor has a value: whatever mixes it with the CPU, or reads, raises."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # there is none on this device
    return deepcopy(model).to(META)


def take(step):
    """Take a step on the device without values."""
    batch = repeated(1, META)
    rates = step.group_rates
    return step([batch.images], batch.targets, epoch=0, batch=0, rates=rates, momentum=0.9)


# Fused kernels do not run there.
@pytest.mark.parametrize(
    "name", some_quick(["rmsprop", "adadelta", "nadam", "radam", "ranger", "lamb", "lion"], "lamb")
)
def test_nothing_of_a_step_lies_on_another_device_than_the_model(on_meta, name):
    for trainable in (1, 3):
        outcome = take(stage_step(on_meta, trainable, name, clip_norm=1.0, batch_size=2))
        assert {outcome.loss.device, outcome.gradient_norms.device} == {META}


WEIGHTS = [0.5, 1.0, 1.5]


@pytest.mark.parametrize(
    ("loss", "mix"),
    [
        (SingleLabel().loss(gamma=2.0, label_smoothing=0.1, weights=WEIGHTS), None),
        (SingleLabel().loss(gamma=0.0, label_smoothing=0.1, weights=WEIGHTS), Mix),
        (SingleLabel().loss(gamma=0.0, label_smoothing=0.0, weights=None), Mix),
    ],
    ids=["focal", "weighted and mixed", "mixed"],
)
def test_nothing_of_a_loss_or_a_mixture_lies_on_another_device_than_the_model(on_meta, loss, mix):
    mix = mix and mix(mixup=0.2, cutmix=0.2, classes=CLASSES)
    step = TrainingStep(
        on_meta,
        stage_optimizer(on_meta, 1, "lamb"),
        loss=loss.to(META),
        seed=0,
        stage=0,
        options=StepOptions(mix=mix),
    )
    assert take(step).loss.device == META


def test_targets_that_were_left_on_the_cpu_are_noticed(on_meta):
    step, batch = stage_step(on_meta, 1, "lamb"), repeated(1, META)
    with pytest.raises(RuntimeError):
        step([batch.images], repeated(1).targets, epoch=0, batch=0, rates=step.group_rates, momentum=0.9)
