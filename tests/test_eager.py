import pytest
import torch
from torch import nn

from finetune.optim.eager import (
    EagerAdadelta,
    EagerAdagrad,
    EagerAdam,
    EagerAdamW,
    EagerNAdam,
    EagerRAdam,
    EagerSGD,
)


@pytest.mark.parametrize(
    ("eager", "settings"),
    [
        (EagerSGD, {"momentum": 0.9, "fused": True}),
        (EagerAdam, {"fused": True}),
        (EagerAdamW, {"fused": True}),
        (EagerNAdam, {"foreach": True}),
        (EagerRAdam, {}),
        (EagerAdagrad, {}),
        (EagerAdadelta, {"foreach": True}),
    ],
)
def test_an_optimizer_steps_as_torchs_own_to_the_bit_also_from_a_saved_state(eager, settings):
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    torchs = next(base for base in eager.__mro__[1:] if base.__module__.startswith("torch.optim."))
    pairs = [(ours, eager), (theirs, torchs)]
    optimizers = [kind(model.parameters(), lr=0.1, weight_decay=0.01, **settings) for model, kind in pairs]
    for step in range(6):
        if step == 3:
            optimizers[0].load_state_dict(optimizers[0].state_dict())
        images = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
        for (model, _), optimizer in zip(pairs, optimizers, strict=True):
            model(images).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            assert model.weight.grad is None
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    states = [optimizer.state_dict() for optimizer in optimizers]
    assert str(states[0]) == str(states[1])


def test_a_step_returns_the_loss_of_its_closure_and_runs_hooks_once():
    weight = nn.Parameter(torch.ones(1))
    optimizer, called = EagerSGD([weight], lr=0.5), []
    optimizer.register_step_post_hook(lambda *_: called.append(1))

    def closure():
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss.detach()

    assert float(optimizer.step(closure)) == 1.0
    assert (weight.tolist(), called) == ([0.0], [1])
