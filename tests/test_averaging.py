"""The average of the weights: its numbers, when the model holds it, and that the steps do not notice."""

import copy

import numpy as np
import pytest
import torch
from test_loop import Seen, make_loaders, make_model
from torch import nn

from finetune.errors import CheckpointError
from finetune.optim.schedule import OneCycle
from finetune.training.averaging import WeightAverage
from finetune.training.events import START, Hooks
from finetune.training.loop import fit_one_cycle
from finetune.training.state import restore_average, training_tensors
from finetune.training.step import TrainingStep


def named(*values):
    return [(str(number), torch.tensor(value)) for number, value in enumerate(values)]


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_the_past_weighs_by_the_decay_and_less_in_the_first_steps(decay):
    generator = np.random.default_rng(0)
    values = generator.normal(size=(60, 3)).astype(np.float32)
    moving = named(values[0].tolist())
    average, expected = WeightAverage(moving, decay), values[0].astype(float)
    for step, value in enumerate(values[1:]):
        moving[0][1].copy_(torch.from_numpy(value))
        average.update(step)
        past = min(decay, (1 + step) / (10 + step))
        expected = past * expected + (1 - past) * value
        assert average.tensors["0"].numpy() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_it_is_put_in_and_what_was_there_comes_back_to_the_last_bit():
    moving = named([1.0, 2.0], [0.1])
    average = WeightAverage(moving, 0.9)
    for _, tensor in moving:
        tensor += 0.7
    before = [tensor.clone() for _, tensor in moving]
    average.update(0)
    average.put_into_model()
    assert average.is_in_model
    for name, tensor in moving:
        assert torch.equal(tensor, average.tensors[name])
    average.take_out()
    assert not average.is_in_model
    for (_, tensor), value in zip(moving, before, strict=True):
        assert torch.equal(tensor, value)


def test_it_is_saved_beside_the_weights_and_loaded_again():
    model = nn.Linear(2, 2)
    moving = list(model.named_parameters())
    average = WeightAverage(moving, 0.9)
    with torch.no_grad():
        model.weight += 1
    average.update(0)
    saved = {name: tensor.clone() for name, tensor in training_tensors(model, None, average).items()}
    assert set(saved) - set(training_tensors(model, None)) == {"average.weight", "average.bias"}
    again = WeightAverage(moving, 0.9)
    restore_average(again, saved)
    for name, tensor in again.tensors.items():
        assert torch.equal(tensor, average.tensors[name])
    begun = WeightAverage(moving, 0.9)
    restore_average(begun, training_tensors(model, None))  # of a run that had none
    assert torch.equal(begun.tensors["weight"], model.weight)
    del saved["average.bias"]
    with pytest.raises(CheckpointError, match="average is of other weights than are trained now"):
        restore_average(again, saved)


def fitted(*, average, over_after=None):
    """Train for three epochs; return what was seen, and the weights wherever a hook is called."""
    model, seen, held = make_model(dropout=0.3), Seen(), {"epoch": [], "saved": []}

    def weights():
        return copy.deepcopy(model.state_dict())

    def epoch(one):
        seen.epochs.append(one)
        held["epoch"].append(weights())
        return one.epoch + 1 == over_after

    def save(reached):
        held["saved"].append(((reached.epoch, reached.batch), weights()))

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    step = TrainingStep(model, optimizer, loss=nn.CrossEntropyLoss(), seed=1, stage=0)
    hooks = Hooks(
        step=seen.steps.append,
        epoch=epoch,
        val_batch=lambda done, total: None,
        due=lambda moment: True,
        save=save,
    )
    own = WeightAverage(step.tensors.moving, 0.9) if average else None
    fit_one_cycle(step, make_loaders(), epochs=3, cycle=OneCycle(), hooks=hooks, reached=START, average=own)
    return seen, held, weights()


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_steps_go_on_as_if_there_were_no_average_and_that_is_what_is_saved():
    (plain, held_plain, _), (seen, held, _) = fitted(average=False), fitted(average=True)
    assert [step.loss for step in seen.steps] == [step.loss for step in plain.steps]
    assert [epoch.train_loss for epoch in seen.epochs] == [epoch.train_loss for epoch in plain.epochs]
    assert [where for where, _ in held["saved"]] == [where for where, _ in held_plain["saved"]]
    *within, (_, last) = zip(held["saved"], held_plain["saved"], strict=True)
    assert all(same(ours, theirs) for (_, ours), (_, theirs) in within)
    assert not same(last[1], held["saved"][-1][1])


@pytest.mark.parametrize("over_after", [None, 2])
def test_the_average_is_validated_kept_and_what_the_stage_ends_with(over_after):
    _, plain, _ = fitted(average=False)
    seen, held, final = fitted(average=True, over_after=over_after)
    # After each of the four steps of an epoch there is what the steps go on from.
    steps = [weights for (_, batch), weights in plain["saved"] if batch]
    lived = [steps[i] for epoch in range(3) for i in range(8 * epoch, 8 * epoch + 4)]
    average, expected = dict(make_model().state_dict()), []
    for step, weights in enumerate(lived):
        past = min(0.9, (1 + step) / (10 + step))
        average = {name: past * average[name] + (1 - past) * weights[name] for name in weights}
        if step % 4 == 3:
            expected.append(average)
    for epoch, ours, theirs in zip(seen.epochs, held["epoch"], expected, strict=over_after is None):
        torch.testing.assert_close(ours, theirs)
        model = make_model()
        model.load_state_dict(ours)
        images = torch.cat([images for images, _ in make_loaders().val])
        torch.testing.assert_close(epoch.val_logits, model.eval()(images))
    assert len(held["epoch"]) == over_after or 3
    assert same(final, held["epoch"][-1])
    assert same(held["saved"][-1][1], final)
