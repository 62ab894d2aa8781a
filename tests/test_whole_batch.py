"""Rows of a batch are computed as the whole batch is: the draws, the statistics, and the step over ranks."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from finetune.data.loading.share import BatchShare
from finetune.errors import ConfigError, DivergenceError
from finetune.machine.ranks import Ranks
from finetune.optim.schedule import OneCycle
from finetune.training.events import START, Hooks, Loaders
from finetune.training.loop import fit_one_cycle
from finetune.training.mix import Mix
from finetune.training.step import StepOptions, TrainingStep
from finetune.training.whole_batch import as_of_whole_batch

SEEDED = threading.Lock()
"""threads share the generator that weights and mixtures are drawn from"""


class Meeting:
    """Exchanges what the threads of a test bring."""

    def __init__(self, size):
        self.barrier, self.brought, self.size = threading.Barrier(size, timeout=60), {}, size

    def bring(self, rank, value):
        self.brought[rank] = value
        self.barrier.wait()
        each = [self.brought[rank] for rank in range(self.size)]
        self.barrier.wait()
        return each

    def add_up(self, rank, tensor):
        tensor.copy_(sum(self.bring(rank, tensor.clone())))


@dataclass(frozen=True)
class ThreadRanks(Ranks):
    """Ranks that are threads of one process."""

    meeting: Meeting | None = None

    def add_up(self, tensor):
        self.meeting.add_up(self.rank, tensor)

    def of_each(self, value):
        return self.meeting.bring(self.rank, value)


def on_ranks(size, function):
    """Call a function with each of the ranks, all at the same time."""
    meeting = Meeting(size)
    with ThreadPoolExecutor(size) as threads:
        return list(threads.map(lambda rank: function(ThreadRanks(rank, size, meeting=meeting)), range(size)))


def channels_last(*shape):
    return torch.ones(shape).to(memory_format=torch.channels_last)


DRAWS = {
    "dropout": lambda rows: functional.dropout(torch.ones(rows, 7), 0.4),
    "dropout, channels last": lambda rows: functional.dropout(channels_last(rows, 3, 4, 5), 0.4),
    "dropout of channels": lambda rows: functional.dropout2d(torch.ones(rows, 6, 2, 2), 0.4),
    "stochastic depth": lambda rows: torchvision.ops.stochastic_depth(torch.ones(rows, 2, 2, 2), 0.5, "row"),
    "metadata": lambda rows: torch.rand(rows, 3),
    "windows of an image": lambda rows: functional.dropout(torch.ones(rows * 4, 3), 0.4),
    "two in a row": lambda rows: functional.dropout(torch.ones(rows, 5), 0.5) * torch.rand(rows, 5),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
@pytest.mark.parametrize("size", [2, 3, 8])
def test_each_rank_draws_the_rows_that_it_has_of_the_whole_batch(draw, size):
    torch.manual_seed(5)
    whole = draw(8)
    found = []
    for rank in range(size):
        share = BatchShare(Ranks(rank, size), 8)
        torch.manual_seed(5)
        with as_of_whole_batch(share):
            found.append(draw(share.number))
        assert torch.rand(1).item() == pytest.approx(after_whole(draw), abs=0)  # the next draw is the same
    assert torch.equal(torch.cat(found), whole)


def after_whole(draw):
    torch.manual_seed(5)
    draw(8)
    return torch.rand(1).item()


def test_a_draw_that_cannot_be_divided_is_refused():
    share = BatchShare(Ranks(0, 2), 8)
    with as_of_whole_batch(share), pytest.raises(ConfigError, match="draws 3 random rows for 4 images"):
        torch.rand(3, 2)
    with as_of_whole_batch(share), pytest.raises(ConfigError, match=r"randperm.*cannot be divided"):
        torch.randperm(4)


@pytest.mark.parametrize("rows", [1, 5])
def test_attention_without_dropout_may_pass(rows):
    share = BatchShare(Ranks(0, 2), 2 * rows)
    query = torch.rand(rows, 2, 4, 8)
    with as_of_whole_batch(share):
        found = functional.scaled_dot_product_attention(query, query, query)
    assert torch.equal(found, functional.scaled_dot_product_attention(query, query, query))


class Network(nn.Module):
    """Has what looks at a whole batch, in more than one kind."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.hidden, self.norm1 = nn.Linear(4, 6), nn.BatchNorm1d(6, momentum=0.3)
        self.last, self.unused = nn.Linear(6, 3), nn.Linear(2, 2)

    def forward(self, images, *others):
        features = self.norm(self.conv(images.double())).relu().mean((2, 3))
        return self.last(self.norm1(self.hidden(features)).relu())


def trained(share, images, targets, options, steps=3):
    """Return all weights and statistics after some steps, and the losses."""
    with SEEDED:  # the layers draw first weights
        module = Network().double()
    generator = torch.Generator().manual_seed(0)  # threads share the default one
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    step = TrainingStep(
        module,
        optimizer,
        loss=nn.CrossEntropyLoss(label_smoothing=0.1),
        seed=1,
        stage=0,
        options=replace(options, share=share),
    )
    rows = slice(None) if share is None else share.rows()
    losses = []
    for batch in range(steps):
        outcome = step(
            [images[batch][rows]], targets[batch][rows], epoch=0, batch=batch, rates=[0.1], momentum=0.9
        )
        losses.append(float(outcome.loss))
        assert outcome.images == len(images[batch])
        assert not any(name.startswith("unused") for name in outcome.gradients)
    return module.state_dict(), losses


class OneAtATime(Mix):
    """Mixes in one thread after the other."""

    def __call__(self, images, targets, seed):
        with SEEDED:
            return super().__call__(images, targets, seed)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (StepOptions(clip_norm=0.5), 1),
        (StepOptions(batch_size=6), 2),
        (StepOptions(batch_size=6, mix=OneAtATime(mixup=0.4, cutmix=0, classes=3)), 2),
    ],
    ids=["clipped", "in parts", "mixed in parts"],
)
def test_ranks_take_the_step_of_one_process(size, options, parts, monkeypatch):
    # Threads share the generator that each would seed, for a dropout that this network does not have.
    monkeypatch.setattr("finetune.training.step.seed_for", lambda seed, device: None)
    torch.manual_seed(2)
    images, targets = torch.rand(3, 12, 3, 6, 6), torch.randint(3, (3, 12))
    alone, losses = trained(None, images, targets, options)

    def on_rank(ranks):
        share = BatchShare(ranks, 12, parts, with_partner=options.mix is not None)
        return trained(share, images, targets, options)

    for state, found in on_ranks(size, on_rank):
        assert found == pytest.approx(losses, rel=1e-6 if options.mix else 1e-12)
        for name, tensor in state.items():
            assert torch.allclose(tensor, alone[name], rtol=1e-9, atol=1e-12), name


class Rows(list):
    """Loads batches as a loader does."""

    @property
    def sampler(self):
        return self

    def start_epoch(self, *place):
        pass


@pytest.mark.parametrize(("broken", "named"), [(1, "rank 1: "), (None, "")], ids=["on one", "on all"])
def test_all_ranks_diverge_at_the_same_step_and_name_the_one_with_the_broken_image(broken, named):
    def on_rank(ranks):
        share, module = BatchShare(ranks, 6), Network().double()
        images, targets = torch.ones(3, 3, 3, 6, 6), torch.zeros(3, 3, dtype=torch.int64)
        if broken in (None, ranks.rank):
            images[1, 0] = float("nan")
        rows = Rows(zip(images, targets, strict=True))
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        options = StepOptions(share=share)
        step = TrainingStep(module, optimizer, loss=nn.CrossEntropyLoss(), seed=1, stage=0, options=options)
        hooks = Hooks(step=lambda step: None, epoch=lambda epoch: None, val_batch=lambda done, total: None)
        loaders = Loaders(rows, rows, torch.device("cpu"))
        with pytest.raises(DivergenceError) as caught:
            fit_one_cycle(step, loaders, epochs=1, cycle=OneCycle(moms=None), hooks=hooks, reached=START)
        return str(caught.value), caught.value.step

    for text, step in on_ranks(2, on_rank):
        assert step == 2
        assert text.startswith(f"{named}The loss is nan at epoch 1, step 2")
        assert "The batch is the cause: 1 of its 3 images have values that are not finite" in text
