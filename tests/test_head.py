import math

import numpy as np
import pytest
import torch
from torch import nn

from finetune.errors import ConfigError
from finetune.model.head import Head


def kinds(head: Head) -> list[type[nn.Module]]:
    return [type(layer) for layer in head.layers]


def test_the_head_has_two_affine_layers_with_a_nonlinearity_between():
    head = Head(16, 5)
    assert kinds(head) == [
        nn.BatchNorm1d, nn.Dropout, nn.Linear, nn.ReLU, nn.BatchNorm1d, nn.Dropout, nn.Linear,
    ]  # fmt: skip
    first, last = (layer for layer in head.layers if isinstance(layer, nn.Linear))
    assert (first.in_features, first.out_features) == (32, 512)
    assert (last.in_features, last.out_features) == (512, 5)
    assert last.bias is not None
    assert [layer.p for layer in head.layers if isinstance(layer, nn.Dropout)] == [0.25, 0.5]


def test_no_hidden_layer_is_a_linear_probe():
    head = Head(16, 5, hidden=(), dropout=0.0, pool="avg").eval()
    linear = head.layers[-1]
    assert [kind for kind in kinds(head) if kind is not nn.Dropout] == [nn.Linear]
    features = torch.randn(3, 16, 4, 4)
    expected = features.numpy().mean((2, 3)) @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()
    np.testing.assert_allclose(head(features).detach().numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("pool", ["avg+max", "avg", "max"])
def test_pooling_takes_mean_and_maximum_of_the_feature_map(pool):
    head = Head(3, 2, pool=pool)
    features = torch.randn(4, 3, 5, 7)
    mean, maximum = features.numpy().mean((2, 3)), features.numpy().max((2, 3))
    expected = {"avg": mean, "max": maximum, "avg+max": np.concatenate([mean, maximum], axis=1)}[pool]
    np.testing.assert_allclose(head.pooled(features).numpy(), expected, rtol=1e-5, atol=1e-6)
    assert head(features).shape == (4, 2)


def test_feature_vectors_pass_the_pooling():
    head = Head(12, 4, pool="none")
    assert head(torch.randn(6, 12)).shape == (6, 4)
    assert head.layers[0].num_features == 12


def test_bfloat16_features_give_float32_logits():
    assert Head(8, 3)(torch.randn(4, 8, 2, 2).bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("hidden", [(), (512,), (256, 64)])
def test_the_first_loss_is_ln_c(classes, hidden):
    torch.manual_seed(0)
    head = Head(64, classes, hidden=hidden)
    targets = torch.randint(classes, (256,))
    loss = nn.functional.cross_entropy(head(torch.randn(256, 64, 3, 3)), targets)
    assert loss.item() == pytest.approx(math.log(classes), abs=0.01)


def test_every_weight_of_the_head_gets_a_gradient_at_once():
    torch.manual_seed(0)
    head = Head(8, 3)
    nn.functional.cross_entropy(head(torch.randn(16, 8, 2, 2)), torch.randint(3, (16,))).backward()
    linears = [layer for layer in head.layers if isinstance(layer, nn.Linear)]
    assert all(bool(linear.weight.grad.abs().sum() > 0) for linear in linears)


def test_one_number_is_the_dropout_of_every_layer():
    head = Head(8, 3, hidden=(16, 16), dropout=0.1)
    assert [layer.p for layer in head.layers if isinstance(layer, nn.Dropout)] == [0.1, 0.1, 0.1]


def test_dropout_that_does_not_fit_the_layers_is_refused():
    with pytest.raises(ConfigError, match="2 values for 2 hidden layers; give 3"):
        Head(8, 3, hidden=(16, 16), dropout=(0.25, 0.5))
    with pytest.raises(ConfigError, match=r"at least 0 and below 1, not \[1.0, 1.0\]"):
        Head(8, 3, dropout=1.0)
    with pytest.raises(ConfigError, match=r"widths must be at least 1, not \[0\]"):
        Head(8, 3, hidden=(0,))
