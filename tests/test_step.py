"""The one step that stages, range tests and races take."""

import pytest
import torch
from test_race import make_trial
from torch import nn

from finetune.lr_finder.trial import no_trace
from finetune.optim.schedule import OneCycle
from finetune.seed import seed_for
from finetune.training.events import START, Hooks, Loaders
from finetune.training.loop import fit_one_cycle
from finetune.training.step import StepOptions, TrainingStep


@pytest.mark.parametrize("clip_norm", [None, 0.1])
def test_a_stage_and_a_race_take_the_same_steps_at_the_same_rates(clip_norm):
    """Dropout, order, rates, momentum and clipping: twice the same training, bit for bit."""
    trial, cycle, epochs = make_trial(clip_norm=clip_norm, optimizer=torch.optim.AdamW), OneCycle(), 2
    steps = len(trial.train) * epochs
    course = [(cycle.rate(step / steps, 0.05), cycle.momentum(step / steps)) for step in range(steps)]
    with no_trace(trial.module):
        tried = list(trial.steps(course))
        tried_weights = [p.detach().clone() for p in trial.module.parameters()]

    told = []
    optimizer = torch.optim.AdamW(trial.module.parameters(), lr=0.05)
    step = TrainingStep(
        trial.module, optimizer, loss=trial.loss, seed=trial.seed, stage=trial.stage, options=trial.options
    )
    fit_one_cycle(
        step,
        Loaders(trial.train, trial.val, trial.device),
        epochs=epochs,
        cycle=cycle,
        hooks=Hooks(step=told.append, epoch=lambda epoch: None, val_batch=lambda done, total: None),
        reached=START,
    )
    assert [one.loss for one in told] == tried
    assert [(one.lrs[0], one.momentum) for one in told] == course
    assert (clip_norm is None) or any(one.clip < 1 for one in told)
    for ours, theirs in zip(trial.module.parameters(), tried_weights, strict=True):
        assert torch.equal(ours, theirs)


def test_the_dropout_of_a_step_is_a_function_of_seed_stage_epoch_and_batch():
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(64, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    inputs, targets = torch.ones(4, 64), torch.zeros(4, dtype=torch.int64)

    def loss(seed=1, stage=0, epoch=0, batch=0):
        seed_for(
            hash((seed, stage, epoch, batch)) % 1000, torch.device("cpu")
        )  # what was drawn before must not matter
        step = TrainingStep(model, optimizer, loss=nn.CrossEntropyLoss(), seed=seed, stage=stage)
        taken = step([inputs], targets, epoch=epoch, batch=batch, rates=[0.0], momentum=None)
        return float(taken.loss)

    assert loss() == loss()
    others = [loss(seed=2), loss(stage=1), loss(epoch=1), loss(batch=1)]
    assert len({loss(), *others}) == 5


def test_a_step_leaves_no_gradient_and_names_those_it_had():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD(model[1].parameters(), lr=1.0)
    step = TrainingStep(model.eval(), optimizer, loss=nn.CrossEntropyLoss(), seed=0, stage=0)
    assert model.training
    taken = step([torch.ones(2, 3)], torch.tensor([0, 1]), epoch=0, batch=0, rates=[0.1], momentum=None)
    assert taken.gradients == ["1.weight", "1.bias"]
    assert taken.gradient_norms.shape == (2,)
    assert not taken.loss.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(("images", "parts"), [(12, [4, 4, 4]), (10, [4, 3, 3]), (4, [4]), (3, [3])])
def test_the_gradients_of_parts_add_up_to_those_of_the_whole(images, parts):
    """By their share of the images, whatever their sizes; the loss is the mean over all images."""
    inputs, targets = torch.randn(images, 3), torch.arange(images) % 2
    taken, sizes = [], []
    for batch_size in (None, 4):
        model = nn.Linear(3, 2)
        nn.init.constant_(model.weight, 0.1)
        nn.init.zeros_(model.bias)
        if batch_size:
            model.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
        optimizer, options = torch.optim.SGD(model.parameters(), lr=1.0), StepOptions(0.1, batch_size)
        step = TrainingStep(model, optimizer, loss=nn.CrossEntropyLoss(), seed=0, stage=0, options=options)
        outcome = step([inputs], targets, epoch=0, batch=0, rates=[1.0], momentum=None)
        taken.append((outcome.loss, outcome.gradient_norms, model.weight.detach()))
    assert sizes == parts
    for whole, sum_of_parts in zip(*taken, strict=True):
        torch.testing.assert_close(sum_of_parts, whole, rtol=1e-5, atol=1e-7)
