"""Who races, who wins, and that every racer starts from the same weights."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from finetune.data.loading.sampler import EpochSampler
from finetune.lr_finder.heuristics import ORDER, Curve, Suggestion
from finetune.lr_finder.race import Candidate, Entry, League, line_up, run_race, winner
from finetune.lr_finder.result import LrFindResult, StartingWeights
from finetune.lr_finder.trial import Trial
from finetune.optim.schedule import OneCycle
from finetune.task import SingleLabel
from finetune.training.feature_views import FirstEpoch
from finetune.training.step import StepOptions


def in_batches(features, seed):
    n = len(features[0])
    return FirstEpoch(EpochSampler(n, 8, seed), features, range(n), batch_size=8)


def make_trial(seed=0, n=48, loss=None, optimizer=torch.optim.SGD, clip_norm=None):
    """Return a linear model over two separable clouds of points."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(n) % 2
    values = torch.randn(n, 4, generator=generator) + 2 * targets[:, None]
    features = (values, targets)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.ReLU(), nn.Linear(8, 2))
    return Trial(
        module=model,
        train=in_batches(features, seed),
        val=[features],
        new_optimizer=lambda: optimizer(model.parameters(), lr=1.0),
        loss=loss or nn.CrossEntropyLoss(),
        judge=SingleLabel().judge,
        device=torch.device("cpu"),
        seed=seed,
        stage=0,
        options=StepOptions(clip_norm),
    )


CONSTANT = OneCycle(div=1.0, div_final=1.0, moms=None)
"""The rate is at its peak all the time."""


def raced(trial, entries, *, steps, cycle):
    """Return the candidates of a race whose images have two classes of the same size."""
    return run_race(trial, entries, steps=steps, cycle=cycle, guess=torch.zeros(2)).candidates


def suggestions(**lrs):
    return [Suggestion(name, lrs.get(name), "" if name in lrs else "flat") for name in ORDER]


def test_the_suggestions_race_and_ten_times_more_and_less_than_the_chosen_one():
    given = suggestions(knee=1e-3, valley=2e-5, steepest=4e-4)
    entries = line_up(given, given[0], 0.1)
    assert [entry.lr for entry in entries] == pytest.approx([2e-5, 1e-4, 4e-4, 1e-3, 1e-2])
    assert [entry.names for entry in entries] == [
        *(("valley",), ("knee ÷ 10",), ("steepest",), ("knee",), ("knee × 10",))
    ]


def test_rates_that_are_nearly_the_same_are_one_racer():
    given = suggestions(knee=1e-3, steepest=1.1e-3, minimum=1.2e-3)
    entries = line_up(given, given[0], None)
    assert entries[1] == Entry(1e-3, ("knee", "steepest", "minimum"))
    assert len(entries) == 3


def test_where_every_heuristic_refuses_the_decades_below_the_explosion_race():
    entries = line_up(suggestions(), None, 0.5)
    assert [entry.lr for entry in entries] == pytest.approx([5e-4, 5e-3, 5e-2])
    assert line_up(suggestions(), None, None) == []


def racer(lr, loss, accuracy=0.5, error=0.01, beats_chance=True, solved=False):
    return Candidate(lr, ("x",), loss, accuracy, error, beats_chance, solved)


def test_the_lowest_loss_wins():
    assert winner([racer(1e-3, 0.5), racer(1e-2, 0.3), racer(1e-1, 0.9)]).lr == 1e-2


def test_losses_within_a_standard_error_are_a_tie_that_accuracy_decides():
    best = racer(1e-2, 0.300, accuracy=0.90, error=0.0)
    assert winner([racer(1e-3, 0.308, accuracy=0.92), best]).lr == 1e-3
    assert winner([racer(1e-3, 0.312, accuracy=0.92), best]).lr == 1e-2
    assert winner([racer(1e-3, 0.308, accuracy=0.90), best]).lr == 1e-2


def test_who_diverged_never_wins():
    fallen = Candidate(1.0, ("x",), None, None, None, beats_chance=False, solved=False)
    assert winner([fallen, racer(1e-3, 5.0)]).lr == 1e-3
    assert winner([fallen]) is None
    assert winner([]) is None


def test_every_racer_starts_from_the_same_weights_with_the_same_batches():
    trial = make_trial()
    one = [Entry(0.1, ("a",))]
    alone = raced(trial, one, steps=12, cycle=CONSTANT)
    crowd = raced(trial, [Entry(1e-3, ("b",)), *one, Entry(30.0, ("c",))], steps=12, cycle=CONSTANT)
    results = {r.lr: (r.val_loss, r.val_accuracy) for r in crowd}
    assert results[0.1] == next((r.val_loss, r.val_accuracy) for r in alone if r.lr == 0.1)


def test_a_racer_is_trained_as_a_plain_loop_would():
    trial = make_trial()
    table = raced(trial, [Entry(0.1, ("a",))], steps=9, cycle=CONSTANT)
    losses = list(trial.steps([(0.1, None)] * 9))
    assert len(losses) == 9
    logits, targets = trial.validate()
    expected = nn.functional.cross_entropy(logits.double(), targets).item()
    assert next(r.val_loss for r in table if r.lr == 0.1) == pytest.approx(expected, rel=1e-12)


def test_later_rounds_try_half_a_decade_to_either_side_of_the_leader_until_it_stays():
    table = raced(make_trial(), [Entry(1e-4, ("low",)), Entry(0.1, ("better",))], steps=12, cycle=CONSTANT)
    best = winner(table)
    assert best.lr > 0.2  # beyond what entered
    rates = [r.lr for r in table]
    for beside in (best.lr / math.sqrt(10), best.lr * math.sqrt(10)):
        assert any(abs(math.log10(lr / beside)) < 0.2 for lr in rates)
    assert [r.names[0] for r in table][:4] == ["low", "round 2", "better", "round 2"]


def test_the_rounds_come_to_an_end():
    table = raced(make_trial(), [Entry(1e-9, ("far",))], steps=2, cycle=CONSTANT)
    assert len(table) <= 9


def test_a_racer_that_explodes_is_told_as_diverged_and_the_others_go_on():
    table = raced(make_trial(), [Entry(0.1, ("good",)), Entry(1e30, ("mad",))], steps=12, cycle=CONSTANT)
    mad = table[-1]
    assert (mad.lr, mad.val_loss, mad.val_accuracy) == (1e30, None, None)
    assert winner(table).lr < 1e3


def test_the_standard_error_is_that_of_the_paired_difference():
    trial = make_trial()
    table = raced(trial, [Entry(1e-3, ("a",)), Entry(0.1, ("b",))], steps=12, cycle=CONSTANT)
    best = min(table, key=lambda r: r.val_loss)
    assert best.standard_error == 0
    assert all(r.standard_error > 0 for r in table if r is not best)


def test_a_racer_follows_the_whole_cycle():
    trial, seen = make_trial(), []

    class Watched(torch.optim.AdamW):
        def step(self, closure=None):
            seen.append((self.param_groups[0]["lr"], self.param_groups[0]["betas"][0]))
            return super().step(closure)

    trial = replace(trial, new_optimizer=lambda: Watched(trial.module.parameters(), lr=1.0))
    cycle = OneCycle()
    raced(trial, [Entry(0.1, ("a",))], steps=8, cycle=cycle)
    assert seen[:8] == [(cycle.rate(step / 8, 0.1), cycle.momentum(step / 8)) for step in range(8)]
    assert seen[0][0] == pytest.approx(0.1 / 25)
    assert seen[2] == (0.1, 0.85)


def test_of_those_that_have_solved_the_task_the_most_accurate_wins_and_then_the_lowest_rate():
    low = racer(1e-3, 0.02, accuracy=1.0, solved=True)
    high = racer(1e-1, 0.0001, accuracy=1.0, error=0.0, solved=True)
    assert winner([racer(1e-4, 0.4, accuracy=1.0), low, high]) is low
    assert winner([replace(low, val_accuracy=0.99), high]) is high


def test_a_task_that_is_solved_does_not_drive_the_rate_up():
    """A higher rate makes a model surer until it diverges, and teaches it nothing of other images."""
    trial = make_trial()
    easy = (torch.eye(2)[torch.arange(48) % 2].repeat(1, 2) * 20 - 10, torch.arange(48) % 2)
    trial = replace(trial, train=in_batches(easy, 0), val=[easy])
    entries = [Entry(rate, ("x",)) for rate in (1e-5, 0.1, 0.5)]
    league = run_race(trial, entries, steps=12, cycle=CONSTANT, guess=torch.zeros(2))
    assert len(league.candidates) == 3  # no further rounds
    assert [candidate.solved for candidate in league.candidates] == [False, True, True]
    assert league.candidates[2].val_loss < league.candidates[1].val_loss
    assert league.winner.lr == 0.1


@pytest.mark.parametrize(
    ("solved", "reason"), [(True, "solves the task; of such rates"), (False, "within one standard error")]
)
def test_the_table_says_why_not_the_lowest_loss_won(solved, reason):
    picked = racer(1e-3, 0.02, accuracy=1.0, solved=solved)
    league = League((picked, racer(1e-1, 0.015, accuracy=0.99, error=0.0, solved=solved)), 1.1)
    assert league.winner is picked
    found = LrFindResult(
        stage="frozen",
        weights=StartingWeights("none"),
        pick="race",
        lr=1e-3,
        found_by=("x",),
        refusal=None,
        suggestions=(),
        curves=(),
        curve=Curve((), ()),
        league=league,
        race_steps=6,
        seconds=1.0,
    )
    guessing, why = found.league_notes()
    assert guessing == "random guessing gives 1.1000"
    assert reason in why


def test_who_learns_nothing_does_not_win_however_low_the_loss():
    low, learned = racer(1e-3, 0.5, beats_chance=False), racer(1e-2, 0.6)
    assert League((low, learned), 0.7).winner is learned
    assert League((low,), 0.7).winner is None


def test_a_candidate_beats_chance_where_its_losses_are_below_those_of_guessing():
    trial = make_trial()
    for parameter in trial.module[3].parameters():
        nn.init.zeros_(parameter)  # it begins by guessing
    entries = [Entry(1e-30, ("still",)), Entry(0.1, ("good",))]
    league = run_race(trial, entries, steps=12, cycle=CONSTANT, guess=torch.zeros(2))
    assert league.chance_loss == pytest.approx(math.log(2), rel=1e-6)
    beats = {candidate.names[0]: candidate.beats_chance for candidate in league.candidates}
    assert beats["good"]
    assert not beats["still"]
    assert league.winner.beats_chance


def test_images_that_all_look_the_same_let_nobody_win():
    """Whatever is learned, one answer for all of them is no better than the best guess."""
    trial = make_trial()
    features = (torch.ones(48, 4), torch.arange(48) % 2)
    trial = replace(trial, train=in_batches(features, 0), val=[features])
    entries = [Entry(lr, ("x",)) for lr in (1e-3, 1e-1, 1.0)]
    league = run_race(trial, entries, steps=40, cycle=CONSTANT, guess=torch.zeros(2))
    assert all(candidate.val_loss is not None for candidate in league.candidates)
    assert league.winner is None
