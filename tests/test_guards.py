"""What stops a training, brought about by what really causes it."""

import math
import re

import pytest
import torch
from test_loop import InOrder, Seen, fit, make_loaders, make_model
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from finetune.errors import DivergenceError
from finetune.optim.schedule import OneCycle
from finetune.training.events import START, Hooks, Loaders
from finetune.training.loop import fit_one_cycle
from finetune.training.norms import StageTensors, tensor_norms
from finetune.training.step import TrainingStep

FINITE = "All weights were finite before this step, and so are the images: the batch or the forward pass"


def loaders_of(images, targets):
    data = TensorDataset(images, targets)
    train = DataLoader(data, batch_size=4, sampler=InOrder(len(images)), generator=torch.Generator())
    return Loaders(train, DataLoader(data, batch_size=4), torch.device("cpu"))


def images_and_targets():
    return torch.randn(16, 3, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 2


def stopped(model, loaders, **how):
    with pytest.raises(DivergenceError) as caught:
        fit(model, loaders, **how)
    lines = str(caught.value).splitlines()
    assert len(lines) in (2, 3)
    assert "the best model so far stays in the run directory" in lines[-1]
    return caught.value


class WithoutLogarithm(nn.Module):
    def forward(self, logits, targets):
        return nn.functional.nll_loss(logits.softmax(1), targets)


def test_probabilities_where_logarithms_belong_give_a_negative_loss_which_stops_the_training():
    error = stopped(make_model(), make_loaders(), loss=WithoutLogarithm())
    assert re.match(
        r"The loss is -0\.\d+ at epoch 1, step 1, rates 0\.0004; cross-entropy is never", str(error)
    )
    assert "Targets or outputs are of the wrong kind" in str(error)
    assert error.step == 1


def test_a_rate_that_explodes_is_named_with_the_first_weight_that_it_broke():
    optimizer = {"optimizer": torch.optim.SGD((model := make_model()).parameters(), lr=1e30), "moms": None}
    error = stopped(model, make_loaders(), **optimizer)
    assert re.match(
        r"The loss is (nan|inf) at epoch 1, step 2, rates [\d.]+e\+29: training has diverged", str(error)
    )
    assert "broken before this step, first 0.weight, of norm inf: the rate is too high" in str(error)
    assert "Try a rate three times lower (stages.0.lr), or precision=float32" in str(error)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_broken_pixel_is_named_with_its_step_and_image(value):
    images, targets = images_and_targets()
    images[9, 1] = value  # the second image of the third batch
    error = stopped(make_model(), loaders_of(images, targets))
    assert "at epoch 1, step 3, " in str(error)
    assert "1 of its 4 images have values that are not finite (number 2 in the batch)" in str(error)
    assert error.step == 3


def test_a_broken_pixel_that_batch_norm_keeps_is_found_as_well():
    images, targets = images_and_targets()
    images[9, 1] = math.nan
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))
    assert "(number 2 in the batch)" in str(stopped(model, loaders_of(images, targets)))


def test_targets_that_are_no_classes_are_named():
    images, targets = images_and_targets()
    targets[4:8] = -100  # what cross-entropy ignores: a mean over nothing
    error = stopped(make_model(), loaders_of(images, targets))
    assert str(error).startswith("The loss is nan at epoch 1, step 2")
    assert "its targets are no classes, they go from -100 to -100" in str(error)


def test_a_number_too_large_in_the_forward_pass_is_told_from_broken_weights():
    images, targets = images_and_targets()
    images[0] = 3e38
    model = nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 2))
    nn.init.constant_(model[0].weight, 2.0)
    assert FINITE in str(stopped(model, loaders_of(images, targets)))


def test_damaged_weights_that_are_frozen_are_named():
    model = make_model()
    model[0].requires_grad_(False)
    model[0].bias.data[3] = math.nan
    optimizer = torch.optim.AdamW(model[3].parameters(), lr=1e-2)
    error = stopped(model, make_loaders(), optimizer=optimizer)
    assert "0.bias is frozen and not finite: the pretrained weights are damaged" in str(error)


class Root(nn.Module):
    """The size of its inputs, as a distance is computed: at 0 an infinite gradient meets one of 0."""

    def forward(self, x):
        return x.square().sqrt()


def test_a_gradient_that_is_not_finite_is_named_by_its_parameters_where_the_loss_is_finite():
    model = nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 8), Root(), nn.Linear(8, 2))
    nn.init.zeros_(model[1].weight)
    nn.init.zeros_(model[1].bias)
    error = stopped(model, make_loaders())
    assert re.match(
        r"The gradient is not finite at epoch 1, step 1, .*, where the loss is 0\.\d+\.", str(error)
    )
    assert "The first of 4 such parameters is 0.weight, of gradient norm nan, the last 1.bias" in str(error)
    assert error.step == 1


def step_of(model, lr):
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    return TrainingStep(model, optimizer, loss=nn.CrossEntropyLoss(), seed=0, stage=0)


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_what_a_broken_gradient_spoils_is_never_validated(step):
    images, targets = images_and_targets()
    images[4 * step - 4 : 4 * step] = 0  # without a bias the root is taken of 0
    model = nn.Sequential(nn.Linear(3, 8, bias=False), Root(), nn.Linear(8, 2))
    seen = Seen()
    with pytest.raises(DivergenceError, match=f"gradient is not finite at epoch 1, step {step}, "):
        fit_one_cycle(
            step_of(model, lr=1e-3),
            loaders_of(images, targets),
            epochs=1,
            cycle=OneCycle(moms=None),
            hooks=seen.hooks,
            reached=START,
        )
    assert [recorded.step + 1 for recorded in seen.steps] == list(range(1, step))
    assert not seen.epochs
    assert not seen.val_batches


def test_weights_that_the_last_step_of_an_epoch_breaks_are_never_validated():
    images, targets = images_and_targets()
    model, epochs = make_model(), []
    hooks = Hooks(step=lambda step: None, epoch=epochs.append, val_batch=lambda done, total: None)
    with pytest.raises(DivergenceError, match=r"weights are not finite after epoch 1, step 1.*\n.*0\.weight"):
        fit_one_cycle(
            step_of(model, lr=1e30),
            loaders_of(images[:4], targets[:4]),
            epochs=2,
            cycle=OneCycle(moms=None),
            hooks=hooks,
            reached=START,
        )
    assert not epochs


def test_the_tensors_of_a_stage_are_sorted_by_what_moves_them():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    model.train()
    tensors = StageTensors(model, torch.optim.SGD(model[3].parameters(), lr=1))
    assert [name for name, _ in tensors.learning] == ["3.weight", "3.bias"]
    assert [name for name, _ in tensors.moving] == ["1.running_mean", "1.running_var", "3.weight", "3.bias"]
    assert [name for name, _ in tensors.still] == ["0.weight", "0.bias", "1.weight", "1.bias"]
    model[1].eval()
    frozen = StageTensors(model, torch.optim.SGD(model[3].parameters(), lr=1))
    assert [name for name, _ in frozen.moving] == ["3.weight", "3.bias"]


def test_norms_are_those_of_each_tensor():
    tensors = [torch.randn(3, 4), torch.randn(5, dtype=torch.float64), torch.zeros(1)]
    expected = [math.sqrt(float((t.double() ** 2).sum())) for t in tensors]
    norms = tensor_norms([("", tensor) for tensor in tensors])
    assert norms.dtype == torch.float32
    assert norms.tolist() == pytest.approx(expected, rel=1e-6)
