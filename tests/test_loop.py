import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Sampler, TensorDataset

from finetune.optim.build import build_optimizer, has_momentum
from finetune.optim.schedule import OneCycle
from finetune.optim.update_rules import UPDATE_RULES
from finetune.seed import derive, seed_for
from finetune.training.events import START, Hooks, Loaders
from finetune.training.inference import compute_logits
from finetune.training.loop import fit_one_cycle
from finetune.training.step import StepOptions, TrainingStep

BATCH_SIZE = 4


class InOrder(Sampler):
    def __init__(self, n):
        self.n, self.epochs = n, []

    def start_epoch(self, stage, epoch, first_batch=0):
        self.epochs.append((stage, epoch))
        self.first = first_batch * BATCH_SIZE

    def __iter__(self):
        return iter(range(self.first, self.n))

    def __len__(self):
        return self.n


class Seen:
    """Hooks that keep what they are told."""

    def __init__(self):
        self.steps, self.epochs, self.val_batches = [], [], []
        self.hooks = Hooks(
            step=self.steps.append,
            epoch=self.epochs.append,
            val_batch=lambda done, total: self.val_batches.append((done, total)),
        )


def make_loaders(n=16, batch_size=BATCH_SIZE):
    generator = torch.Generator().manual_seed(0)
    images, targets = torch.randn(n, 3, generator=generator), torch.arange(n) % 2
    data = TensorDataset(images, targets)
    train = DataLoader(data, batch_size=batch_size, sampler=InOrder(n), generator=torch.Generator())
    return Loaders(train, DataLoader(data, batch_size=batch_size), torch.device("cpu"))


def make_model(dropout=0.0):
    seed_for(0, torch.device("cpu"))
    return nn.Sequential(nn.Linear(3, 8), nn.Dropout(dropout), nn.ReLU(), nn.Linear(8, 2))


def sgd_step(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    return TrainingStep(model, optimizer, loss=nn.CrossEntropyLoss(), seed=1, stage=0)


def fit(
    model,
    loaders,
    *,
    lr=1e-2,
    epochs=2,
    loss=None,
    optimizer=None,
    moms=(0.95, 0.85, 0.95),
    stage=0,
    clip_norm=None,
):
    seen = Seen()
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.1)
    loss, options = loss or nn.CrossEntropyLoss(), StepOptions(clip_norm)
    step = TrainingStep(model, optimizer, loss=loss, seed=1, stage=stage, options=options)
    cycle = OneCycle(moms=moms)
    fit_one_cycle(step, loaders, epochs=epochs, cycle=cycle, hooks=seen.hooks, reached=START)
    return seen


@pytest.mark.parametrize("over_after", [1, 3])
def test_every_moment_is_asked_about_and_the_last_epoch_is_saved_unasked(over_after):
    asked, saved = [], []

    def due(moment):
        asked.append(moment)
        return moment == "val_batch"

    def save(reached):
        asked.append("save")
        saved.append((reached.epoch, reached.batch))

    model = make_model()
    fit_one_cycle(
        sgd_step(model),
        make_loaders(),
        epochs=3,
        cycle=OneCycle(moms=None),
        reached=START,
        hooks=Hooks(
            step=lambda step: None,
            epoch=lambda epoch: epoch.epoch + 1 == over_after,
            val_batch=lambda done, total: None,
            due=due,
            save=save,
        ),
    )
    batches = len(make_loaders().train)
    epoch = ["step"] * batches + ["val_batch", "save"] * batches
    assert asked == [*epoch, "epoch"] * (over_after - 1) + [*epoch, "save"]
    assert saved[:batches] == [(0, batches)] * batches  # the state before the validation
    assert saved[-1] == (over_after, 0)


@pytest.mark.parametrize("clip_norm", [None, 0.05, 1e6])
def test_a_stage_equals_a_plain_torch_loop_with_the_same_schedule(clip_norm):
    from fastai.callback.schedule import combined_cos

    loaders, epochs, lr = make_loaders(), 3, 1e-2
    ours, plain = make_model(dropout=0.3), make_model(dropout=0.3)
    seen = fit(ours, loaders, lr=lr, epochs=epochs, clip_norm=clip_norm)

    optimizer = torch.optim.AdamW(plain.parameters(), lr=lr, weight_decay=0.1)
    rate, momentum = combined_cos(0.25, lr / 25, lr, lr / 1e5), combined_cos(0.25, 0.95, 0.85, 0.95)
    losses, factors = [], []
    for epoch in range(epochs):
        plain.train()
        for i, (images, targets) in enumerate(loaders.train):
            where = epoch / epochs
            for _ in range(i):
                where += 1 / (4 * epochs)  # as fastai adds it up
            optimizer.param_groups[0].update(lr=rate(where), betas=(momentum(where), 0.999))
            seed_for(derive(1, "dropout", 0, epoch, i), torch.device("cpu"))
            loss = nn.functional.cross_entropy(plain(images), targets)
            loss.backward()
            if clip_norm is not None:
                length = float(nn.utils.clip_grad_norm_(plain.parameters(), clip_norm))
                factors.append(min(1.0, clip_norm / length))
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    assert [step.loss for step in seen.steps] == losses
    assert [step.clip for step in seen.steps] == (
        pytest.approx(factors, rel=1e-4) if factors else [None] * 12
    )
    assert not factors or all(factor < 1 for factor in factors) == (clip_norm < 1)
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a, b)


def test_each_group_keeps_its_own_weight_decay():
    model = make_model()
    groups = [
        {"params": [model[0].weight], "lr": 1e-3, "weight_decay": 0.5},
        {"params": [model[0].bias], "lr": 1e-2, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups)
    seen = fit(model, make_loaders(), optimizer=optimizer)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0]
    peak = max(step.lrs[0] for step in seen.steps)
    assert peak == pytest.approx(1e-3, rel=0.2)
    assert all(step.lrs[1] == pytest.approx(10 * step.lrs[0]) for step in seen.steps)


def test_the_gradient_norm_of_a_group_is_that_of_all_its_parameters_before_clipping():
    ours, plain, loaders = make_model(), make_model(), make_loaders()
    groups = [
        {"params": [ours[0].weight], "name": "body", "lr": 1e-2},
        {"params": [ours[0].bias], "name": "body", "lr": 1e-2},
        {"params": list(ours[3].parameters()), "name": "head", "lr": 1e-2},
    ]
    seen = fit(ours, loaders, optimizer=torch.optim.SGD(groups), moms=None, epochs=1, clip_norm=1e-6)
    images, targets = next(iter(loaders.train))
    nn.functional.cross_entropy(plain(images), targets).backward()
    told = seen.steps[0].grad_norm
    assert list(told) == ["body", "head"]
    for name, layer in (("body", plain[0]), ("head", plain[3])):
        gradient = torch.cat([parameter.grad.flatten() for parameter in layer.parameters()])
        assert told[name] == pytest.approx(float(gradient.norm()), rel=1e-5)
    assert all(len(step.grad_norm) == 2 for step in seen.steps)


def test_hooks_see_every_step_and_every_epoch():
    loaders = make_loaders()
    seen = fit(make_model(), loaders, epochs=2, stage=3)
    assert [(step.epoch, step.step) for step in seen.steps] == [(i // 4, i) for i in range(8)]
    assert [epoch.epoch for epoch in seen.epochs] == [0, 1]
    assert loaders.train.sampler.epochs == [(3, 0), (3, 1)]
    assert seen.val_batches == [(i % 4 + 1, 4) for i in range(8)]
    for epoch in seen.epochs:
        losses = [step.loss for step in seen.steps if step.epoch == epoch.epoch]
        assert epoch.train_loss == pytest.approx(sum(losses) / 4, rel=1e-12)
        assert epoch.val_logits.shape == (16, 2)
        assert torch.equal(epoch.val_targets, torch.arange(16) % 2)


def test_validation_is_done_in_eval_mode_with_the_epochs_last_weights():
    model, loaders = make_model(dropout=0.5), make_loaders()
    seen = fit(model, loaders, epochs=1)
    model.eval()
    with torch.no_grad():
        expected = torch.cat([model(images) for images, _ in loaders.val])
    assert torch.equal(seen.epochs[0].val_logits, expected)


def test_plain_sgd_is_given_no_momentum():
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    seen = fit(model, make_loaders(), optimizer=optimizer, moms=None)
    assert optimizer.param_groups[0]["momentum"] == 0
    assert {step.momentum for step in seen.steps} == {None}


PEAKS = {"sgd": 0.5, "momentum": 0.5, "nesterov": 0.5, "adagrad": 0.3, "adadelta": 10.0}
PEAKS |= {"radam": 0.3, "ranger": 1.0, "lion": 0.01}


@pytest.mark.parametrize("name", UPDATE_RULES)
def test_every_optimizer_follows_the_cycle_in_every_group(name):
    model, peak = make_model(), PEAKS.get(name, 0.03)
    groups = [
        {"params": list(model[0].parameters()), "lr": peak / 10, "weight_decay": 0.01},
        {"params": list(model[3].parameters()), "lr": peak, "weight_decay": 0.0},
    ]
    optimizer = build_optimizer(groups, name=name, decay="decoupled")
    moms = (0.95, 0.85, 0.95) if has_momentum(optimizer) else None
    seen = fit(model, make_loaders(), optimizer=optimizer, epochs=10, moms=moms)
    assert all(step.lrs[1] == pytest.approx(10 * step.lrs[0]) for step in seen.steps)
    assert seen.steps[0].lrs[1] == pytest.approx(peak / 25)
    assert seen.steps[10].lrs[1] == pytest.approx(peak)
    assert seen.epochs[-1].train_loss < 0.95 * seen.epochs[0].train_loss
    momenta = [step.momentum for step in seen.steps]
    if moms is None:
        assert set(momenta) == {None}
        return
    assert momenta[0] == pytest.approx(0.95)
    assert min(momenta) == momenta[10] == pytest.approx(0.85)
    kept = [group["betas"][0] if "betas" in group else group["momentum"] for group in optimizer.param_groups]
    assert kept == [momenta[-1]] * 2


def test_an_error_in_a_hook_arrives_as_it_is():
    model, loaders = make_model(), make_loaders()

    def fail(step):
        raise OSError(28, "No space left on device")

    hooks = Hooks(step=fail, epoch=lambda epoch: None, val_batch=lambda done, total: None)
    with pytest.raises(OSError, match=r"^\[Errno 28\] No space left on device$"):
        fit_one_cycle(
            sgd_step(model),
            loaders,
            epochs=1,
            cycle=OneCycle(moms=None),
            hooks=hooks,
            reached=START,
        )


@pytest.mark.parametrize("images", [8, 32])
def test_validation_is_copied_from_the_device_once_an_epoch(images, monkeypatch):
    copies, copy = [], torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: copies.append(len(self)) or copy(self))
    fit(make_model(), make_loaders(images), epochs=2)
    assert copies == [images] * 4  # logits and targets, in each of two epochs


def test_logits_are_copied_from_the_device_once(monkeypatch):
    copies, copy = [], torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: copies.append(len(self)) or copy(self))
    model, batches = make_model(), make_loaders(16).val
    logits, targets = compute_logits(model, batches, device=torch.device("cpu"))
    assert copies == [16, 16]
    assert (logits.shape, targets.shape) == ((16, 2), (16,))
