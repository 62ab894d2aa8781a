"""Ranks that divide the weights of a network take the steps of one process that has them all."""

from dataclasses import replace
from typing import get_args

import pytest
import torch
from divided_steps import Case, on_ranks, refused, steps_of

from finetune.choices import OptimizerName
from finetune.config.config import Config
from finetune.errors import ConfigError
from finetune.experiment.features import _in_chunks
from finetune.experiment.ranks import device_lines, put_on_device
from finetune.machine.ranks import ALONE, Ranks

CASES = {
    "clipped": Case(clip_norm=0.5),
    "in parts, mixed": Case(arch="timm:test_resnet", parts=2, mixup=0.4),
    "early groups frozen": Case(arch="timm:test_resnet", trainable=2, clip_norm=0.5),
    "stochastic depth": Case(arch="efficientnet_b0"),
    "concatenated views": Case(arch="shufflenet_v2_x0_5"),
    "loose parameters": Case(arch="timm:vit_tiny_patch16_224"),
    "a shared layer": Case(arch="timm:coat_tiny", image_size=64, steps=1),
}


def assert_equal(found, wanted, tolerance=1e-9):
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        if name != "held":
            bound = 1e-5 if name == "measured" else tolerance  # norms are measured in float32
            assert torch.allclose(found[name].double(), tensor.double(), rtol=bound, atol=bound), name


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
def test_ranks_that_divide_the_weights_take_the_step_of_one_process(size, tmp_path):
    """To 1e-9 in float64: weights, statistics, optimizer states, averages; losses and all norms."""
    cases = list(CASES.values())
    for case, found in zip(cases, on_ranks(size, steps_of, cases, tmp_path), strict=True):
        assert_equal(found, steps_of(case))


@pytest.mark.slow
def test_every_optimizer_takes_the_same_steps_with_divided_weights(tmp_path):
    """As ranks that hold everything, in six steps, after which Ranger has looked back.

    One process is no measure here: Lion goes by the signs of gradients that are 0 but for their last bits.
    """
    cases = [
        Case(arch="timm:test_resnet", optimizer=name, steps=6, divided=divided)
        for divided in (True, False)
        for name in get_args(OptimizerName)
    ]
    found = on_ranks(2, steps_of, cases, tmp_path)
    half = len(cases) // 2
    for parts, whole in zip(found[:half], found[half:], strict=True):
        assert_equal(parts, whole)
        assert bool((parts["held"] < 0.51 * whole["held"]).all())


FAMILIES = (
    "densenet121",
    "googlenet",
    "mobilenet_v3_small",
    "regnet_y_400mf",
    "squeezenet1_1",
    "swin_t",
    "timm:dla46x_c",
    "timm:hrnet_w18_small",
    "timm:pvt_v2_b0",
    "timm:test_nfnet",
)


@pytest.mark.slow
def test_networks_of_many_kinds_take_the_step_of_ranks_that_hold_everything(tmp_path):
    """However blocks are called: twice, in branches, or before what changes their output in place."""
    cases = [
        Case(arch=arch, image_size=64, steps=1, divided=divided)
        for divided in (True, False)
        for arch in FAMILIES
    ]
    found = on_ranks(2, steps_of, cases, tmp_path)
    for parts, whole in zip(found[: len(FAMILIES)], found[len(FAMILIES) :], strict=True):
        assert_equal(parts, whole)


@pytest.mark.slow
def test_bfloat16_and_divided_weights_go_together(tmp_path):
    case = Case(arch="efficientnet_b0", precision="bfloat16", double=False)
    divided, whole = on_ranks(2, steps_of, [case, replace(case, divided=False)], tmp_path)
    first = slice(0, 1)  # the loss of the first step; then rounding to 8 bits goes its own ways
    assert torch.allclose(divided["measured"][first], whole["measured"][first], rtol=2e-3)
    assert torch.allclose(divided["logits"], whole["logits"], atol=0.05)


@pytest.mark.slow
def test_a_network_that_uses_weights_without_calling_their_block_is_refused(tmp_path):
    (found,) = on_ranks(2, refused, [Case()], tmp_path)
    first, second = bytes(found["text"].tolist()).decode().splitlines()
    assert first.startswith("shard: the weights of resnet18 cannot be divided: ")
    assert second == "Set shard: none, or choose another network."


def config(**values):
    return Config(data={"path": "builtin:digits"}, shard="weights", **values)


def test_one_device_says_that_it_holds_everything():
    assert device_lines(config(), ALONE) == [
        "shard   one device holds everything; there is no other to divide the weights with"
    ]
    _, line = device_lines(config(), Ranks(0, 4))
    assert line == "shard   each holds 1/4 of the backbone's weights, gradients and states"


def test_an_optimizer_of_a_package_is_refused():
    theirs = config()
    theirs = theirs.model_copy(update={"optimizer": theirs.optimizer.model_copy(update={"name": "theirs"})})
    model = torch.nn.Linear(1, 1)
    with pytest.raises(
        ConfigError, match=r"shard: theirs is the optimizer of a package[^\n]*\nSet shard: none"
    ):
        put_on_device(model, theirs, Ranks(0, 2), torch.device("cpu"))
    put_on_device(model, theirs, ALONE, torch.device("cpu"))  # nothing is divided


@pytest.mark.parametrize(("images", "calls"), [(8, 2), (7, 2), (3, 2)])
def test_ranks_with_a_smaller_batch_call_a_divided_network_as_often(images, calls):
    seen = []

    def extract(chunk):
        seen.append(len(chunk))
        return chunk + 1

    batch = torch.arange(float(images))
    assert torch.equal(_in_chunks(extract, 4, batch, at_least=2), batch + 1)
    assert len(seen) == calls
