"""Mixing images in pairs: pixels and targets by the same shares, from a seed."""

import math

import pytest
import torch

from finetune.task.losses import ClassificationLoss
from finetune.training.mix import Mix
from finetune.training.step import StepOptions, TrainingStep

CLASSES, IMAGES = 5, 6
SINGLE = torch.arange(IMAGES) % CLASSES
SEVERAL = (torch.arange(IMAGES * CLASSES).reshape(IMAGES, CLASSES) % 3 == 0).float()


def images_of_one_grey_each():
    """Return uint8 images (N, 3, 32, 32), each of one value, so that shares can be read from pixels."""
    greys = torch.tensor([0, 37, 251, 101, 200, 9], dtype=torch.uint8)
    return greys[:, None, None, None].expand(IMAGES, 3, 32, 32).contiguous()


def as_shares(targets):
    return torch.eye(CLASSES)[targets] if targets.ndim == 1 else targets


@pytest.mark.parametrize("targets", [SINGLE, SEVERAL], ids=["one label", "several labels"])
@pytest.mark.parametrize("way", ["mixup", "cutmix"])
def test_images_and_targets_are_mixed_by_the_same_shares(way, targets):
    images = images_of_one_grey_each()
    mix = Mix(**({"mixup": 0, "cutmix": 0} | {way: 1.0}), classes=CLASSES)
    met = set()
    for seed in range(20):
        pixels, shares = mix(images, targets, seed)
        assert (pixels.dtype, pixels.shape) == (torch.float32, images.shape)
        assert shares.shape == (IMAGES, CLASSES)
        own, other = images.float(), images.float().roll(1, 0)
        # The share of the first image, from the means of its pixels: the second one differs from the first.
        share = float(((pixels - other) / (own - other)).mean())
        expected = share * as_shares(targets) + (1 - share) * as_shares(targets).roll(1, 0)
        torch.testing.assert_close(shares, expected, atol=1e-4, rtol=0)
        if way == "cutmix":
            assert bool(((pixels == own) | (pixels == other)).all())
        else:
            torch.testing.assert_close(pixels, share * own + (1 - share) * other, atol=1e-3, rtol=0)
        met.add(round(share, 3))
    assert len(met) > 10
    assert torch.equal(images, images_of_one_grey_each())


def test_a_batch_gets_one_of_two_ways_and_both_occur():
    images, mix = images_of_one_grey_each(), Mix(mixup=1.0, cutmix=1.0, classes=CLASSES)
    kinds = []
    for seed in range(40):
        pixels, _ = mix(images, SINGLE, seed)
        pure = (pixels == images) | (pixels == images.roll(1, 0))
        kinds.append(bool(pure.all()))
    assert 8 < sum(kinds) < 32


def test_a_mixture_is_a_function_of_the_seed_and_leaves_the_generator_alone():
    images, mix = images_of_one_grey_each(), Mix(mixup=1.0, cutmix=1.0, classes=CLASSES)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, shares = mix(images, SINGLE, 7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    again, shares_again = mix(images, SINGLE, 7)
    assert torch.equal(first, again)
    assert torch.equal(shares, shares_again)
    assert not torch.equal(first, mix(images, SINGLE, 8)[0])


def test_whole_numbers_are_shares_too():
    assert len(set(Mix(mixup=1, cutmix=0, classes=2).shares())) > 900


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_the_shares_have_the_mean_entropy_of_their_distribution(alpha):
    def entropy(share):
        return -sum(part * math.log(part) for part in (share, 1 - share) if part)

    shares = Mix(mixup=alpha, cutmix=0, classes=3).shares()
    # ψ(2α + 1) − ψ(α + 1): the mean of −λ ln λ − (1 − λ) ln(1 − λ) over Beta(α, α).
    digamma = torch.digamma(torch.tensor([2 * alpha + 1, alpha + 1], dtype=torch.float64))
    assert sum(map(entropy, shares)) / len(shares) == pytest.approx(float(digamma[0] - digamma[1]), rel=0.05)
    assert min(shares) >= 0
    assert max(shares) <= 1


class Spy(torch.nn.Module):
    """Keep what goes through, and what a layer of dropout lets through after it."""

    def __init__(self):
        super().__init__()
        self.seen, self.kept = [], []
        self.layer, self.dropout = torch.nn.Linear(3 * 32 * 32, CLASSES), torch.nn.Dropout(0.5)

    def forward(self, images):
        self.seen.append(images.clone())
        self.kept.append(self.dropout(torch.ones(64)))
        return self.layer(images.flatten(1).float() / 255)


def stepped(mix, *, seed=1, stage=0, epoch=0, batch=0):
    """Return what a step of two parts of three images shows its model."""
    model, options = Spy(), StepOptions(batch_size=3, mix=mix)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    step = TrainingStep(model, optimizer, loss=ClassificationLoss(), seed=seed, stage=stage, options=options)
    inputs = [images_of_one_grey_each()]
    step(inputs, SINGLE, epoch=epoch, batch=batch, rates=[0.0], momentum=None)
    return model


def test_a_step_mixes_by_seed_stage_epoch_batch_and_part():
    mix = Mix(mixup=1.0, cutmix=0, classes=CLASSES)
    first, second = stepped(mix).seen
    assert len(first) == len(second) == 3
    for part, again in zip((first, second), stepped(mix).seen, strict=True):
        assert torch.equal(part, again)
    for other in ({"seed": 2}, {"stage": 1}, {"epoch": 1}, {"batch": 1}):
        assert not torch.equal(first, stepped(mix, **other).seen[0])
    # Greys 0 and 37 in one part, 101 and 200 in the other.
    shares = float(first[1].mean()) / 37, (float(second[1].mean()) - 101) / 99
    assert all(0 < share < 1 for share in shares)
    assert abs(shares[0] - shares[1]) > 1e-3


def test_mixing_does_not_change_what_dropout_drops():
    mixed, plain = stepped(Mix(mixup=1.0, cutmix=1.0, classes=CLASSES)), stepped(None)
    assert not torch.equal(mixed.seen[0], plain.seen[0])
    for dropped, expected in zip(mixed.kept, plain.kept, strict=True):
        assert torch.equal(dropped, expected)
