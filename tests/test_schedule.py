"""The one-cycle schedule: fastai's values to the last bit, and where an optimizer keeps them."""

import numpy as np
import pytest
import torch

import finetune.training.loop  # noqa: F401  (first: it imports fastai without its warnings)

# isort: split
from fastai.callback.schedule import combined_cos as fastai_combined_cos

from finetune.optim.schedule import OneCycle, combined_cos, set_rates


@pytest.mark.parametrize("pct_start", [0.25, 0.1, 0.3, 0.5, 0.99, 1e-3, 1 / 3])
@pytest.mark.parametrize("steps", [1, 2, 7, 12, 40, 1437])
def test_rate_and_momentum_are_those_of_fastai_to_the_last_bit(pct_start, steps):
    cycle, peaks = OneCycle(pct_start=pct_start), np.array([1e-5, 3e-4, 1e-3, 0.7])
    rates = fastai_combined_cos(pct_start, peaks / 25, peaks, peaks / 1e5)
    momenta = fastai_combined_cos(pct_start, 0.95, 0.85, 0.95)
    for step in range(steps + 1):
        where = step / steps
        assert [cycle.rate(where, float(peak)) for peak in peaks] == rates(where).tolist()
        assert cycle.momentum(where) == momenta(where)


def test_the_values_go_from_the_start_over_the_turn_to_the_end():
    values = [combined_cos(where, (1.0, 5.0, 2.0), pct_start=0.5) for where in (0, 0.25, 0.5, 0.75, 1)]
    assert values == pytest.approx([1.0, 3.0, 5.0, 3.5, 2.0])


def test_an_optimizer_without_momentum_has_none_in_the_schedule():
    assert OneCycle(moms=None).momentum(0.3) is None


@pytest.mark.parametrize(
    ("kind", "key"),
    [(torch.optim.AdamW, "betas"), (torch.optim.RMSprop, "momentum"), (torch.optim.SGD, "momentum")],
)
def test_rates_and_momentum_are_set_where_an_optimizer_keeps_them(kind, key):
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = kind([{"params": [weight]} for weight in weights], lr=1.0)
    before = optimizer.param_groups[0][key]
    set_rates(optimizer, (0.1, 0.2), None)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.2]
    assert optimizer.param_groups[0][key] == before
    set_rates(optimizer, (0.1, 0.2), 0.7)
    expected = (0.7, before[1]) if key == "betas" else 0.7
    assert [group[key] for group in optimizer.param_groups] == [expected] * 2
    with pytest.raises(ValueError, match="argument"):
        set_rates(optimizer, (0.1,), None)
