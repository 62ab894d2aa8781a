"""Ridge regression: leave-one-out against real refits, and scikit-learn's."""

import pytest
import torch
from sklearn.linear_model import Ridge as SklearnRidge

from finetune.analysis.ridge import fit_ridge, solve_ridge


def made_up(n, d, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(n) % classes
    centres = torch.randn(classes, d, generator=generator)
    features = centres[targets] + 2 * torch.randn(n, d, generator=generator) + 5
    return features, torch.nn.functional.one_hot(targets, classes).float()


def mean_variance(values):
    squared = torch.linalg.svdvals(values) ** 2
    return float(squared[squared > squared.max() * 1e-10].mean())


@pytest.mark.parametrize(("n", "d"), [(40, 6), (12, 30)])
def test_with_one_penalty_it_is_the_same_fit(n, d):
    features, targets = made_up(n, d)
    quick, ours = solve_ridge(features, targets, penalty=0.5), fit_ridge(features, targets, penalties=[0.5])
    new = made_up(5, d, seed=1)[0]
    assert torch.allclose(quick.predict(new), ours.predict(new), atol=1e-5)


@pytest.mark.parametrize(("n", "d"), [(40, 6), (12, 30)])
def test_a_fit_is_scikit_learns(n, d):
    features, targets = made_up(n, d)
    ours = fit_ridge(features, targets, penalties=[0.5])
    values = (features.double() - ours.mean) / ours.scale
    alpha = 0.5 * mean_variance(values)
    theirs = SklearnRidge(alpha=alpha).fit(values.numpy(), targets.double().numpy())
    assert torch.allclose(
        ours.predict(features), torch.tensor(theirs.predict(values.numpy())).float(), atol=1e-5
    )


@pytest.mark.parametrize(("n", "d"), [(40, 6), (12, 30)])
def test_what_is_left_out_has_no_part_in_its_own_prediction(n, d):
    features, targets = made_up(n, d)
    ours = fit_ridge(features, targets, penalties=[0.5])
    values = ((features.double() - ours.mean) / ours.scale).numpy()
    alpha = 0.5 * mean_variance(torch.tensor(values))
    for image in range(n):
        others = [i for i in range(n) if i != image]
        refit = SklearnRidge(alpha=alpha).fit(values[others], targets.double().numpy()[others])
        expected = torch.tensor(refit.predict(values[[image]])[0]).float()
        assert torch.allclose(ours.left_out[image], expected, atol=1e-5)


def test_the_penalty_is_the_one_with_the_least_error_on_what_is_left_out():
    features, targets = made_up(60, 40)
    chosen = fit_ridge(features, targets)
    errors = {
        penalty: float(((fit_ridge(features, targets, penalties=[penalty]).left_out - targets) ** 2).mean())
        for penalty in (1e-2, 1e-1, 1.0, 10.0, 1e2)
    }
    assert float(((chosen.left_out - targets) ** 2).mean()) <= min(errors.values())
    assert chosen.penalty not in (1e-2, 1e2)


def test_features_that_never_change_and_images_that_come_twice_do_no_harm():
    features, targets = made_up(20, 5)
    features[:, 2] = 7.0
    features[1] = features[0]
    ridge = fit_ridge(features, targets)
    assert torch.isfinite(ridge.left_out).all()
    assert torch.isfinite(ridge.predict(features)).all()


@pytest.mark.parametrize("fit", [fit_ridge, solve_ridge])
def test_features_without_anything_in_them_answer_with_the_shares_of_the_classes(fit):
    ridge = fit(torch.ones(6, 4), torch.eye(3).repeat(2, 1))
    assert torch.allclose(ridge.predict(torch.ones(1, 4)), torch.full((1, 3), 1 / 3))
