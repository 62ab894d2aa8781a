import itertools

import pytest
import torch
from conftest import some_quick
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision.ops import Conv2dNormActivation

from finetune.errors import ConfigError
from finetune.model.catalogue import architectures, find_architecture
from finetune.model.head import Head
from finetune.model.layer_groups import (
    LayerGroup,
    build_groups,
    decayed_names,
    decayed_parameters,
    layer_rows,
    split_into_groups,
)
from finetune.model.surgery import build_network, cut
from finetune.model.units import depth, find_units

# Blocks of torchvision whose input meets their output again, and branches that are joined.
BLOCKS = {
    "BasicBlock", "Bottleneck", "InvertedResidual", "_InvertedResidual", "MBConv", "FusedMBConv", "CNBlock",
    "EncoderBlock", "SwinTransformerBlock", "SwinTransformerBlockV2", "PatchMerging", "PatchMergingV2",
    "ResBottleneckBlock", "PartitionAttentionLayer", "_DenseBlock", "_Transition", "Fire", "Inception",
    "InceptionA", "InceptionB", "InceptionC", "InceptionD", "InceptionE", "BasicConv2d",
}  # fmt: skip


class WithoutMemory(TorchFunctionMode):
    """Put parameters on the meta device, so that even the largest network is there in no time."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if function in (torch.empty, torch.zeros, torch.ones):
            kwargs["device"] = "meta"
        return function(*args, **kwargs)


def weightless(name: str) -> tuple[nn.Module, nn.Sequential]:
    arch = find_architecture(name)
    with WithoutMemory():
        network = build_network(arch, arch.image_size, transform_input=True)
    network.to("meta")
    return network, cut(network)


def group_of_each_parameter(groups: list[LayerGroup]) -> dict[int, int]:
    return {id(parameter): group.index for group in groups for parameter in group.parameters()}


def affine_weights_in_order_of_use(network: nn.Module, image_size: int) -> list[Tensor]:
    """Run torchvision's own forward, and note the weights of convolutions and linear layers as they come."""
    order: list[Tensor] = []
    handles = [
        module.register_forward_pre_hook(lambda module, _: order.append(module.weight))
        for module in network.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        network.eval()(torch.empty(1, 3, image_size, image_size, device="meta"))
    for handle in handles:
        handle.remove()
    return order


@pytest.mark.parametrize(
    "name",
    some_quick(
        [arch.name for arch in architectures()],
        *({arch.family: arch.name for arch in architectures()}.values()),
    ),
)
def test_three_groups_of_every_architecture(name):
    network, backbone = weightless(name)
    head = Head(8, 2)
    groups = build_groups(find_units(backbone), head, 3)
    assert [group.name for group in groups] == ["early backbone", "late backbone", "head"]
    assert [group.index for group in groups] == [0, 1, 2]

    members = [[id(parameter) for parameter in group.parameters()] for group in groups]
    everything = [id(parameter) for part in (backbone, head) for parameter in part.parameters()]
    assert all(members)
    assert sorted(itertools.chain(*members)) == sorted(everything)

    where = group_of_each_parameter(groups)
    for block in network.modules():
        if type(block).__name__ in BLOCKS or isinstance(block, Conv2dNormActivation):
            inside = {where[id(p)] for p in block.parameters() if id(p) in where}
            assert len(inside) <= 1, type(block).__name__

    order = affine_weights_in_order_of_use(network, find_architecture(name).image_size)
    used = [where[id(weight)] for weight in order if id(weight) in where]
    assert used == sorted(used)
    assert {0, 1} == set(used)

    early, late = (sum(depth(module) for _, module in group.units) for group in groups[:2])
    largest = max(sum(depth(module) for _, module in unit) for unit in find_units(backbone))
    assert abs(early - late) <= largest

    for group in groups:
        rows = layer_rows(group)
        assert sum(row["parameters"] for row in rows) == sum(p.numel() for p in group.parameters())
        assert len({row["name"] for row in rows}) == len(rows)


def unit_of(depths: list[int]) -> list[tuple[tuple[str, nn.Module], ...]]:
    """Make units of these depths."""
    return [
        ((f"unit{i}", nn.Sequential(*(nn.Linear(1, 1) for _ in range(d)))),) for i, d in enumerate(depths)
    ]


@pytest.mark.parametrize(
    ("depths", "n", "expected"),
    [
        ([1, 1, 1, 1], 2, [2, 2]),
        ([5, 1, 1, 1], 2, [1, 3]),
        ([1, 1, 1, 5], 2, [3, 1]),
        ([1, 1, 1], 2, [1, 2]),
        ([9, 1, 1], 3, [1, 1, 1]),
        ([2, 2, 2, 3, 3], 3, [2, 2, 1]),
    ],
)
def test_groups_are_as_equally_deep_as_can_be(depths, n, expected):
    units = unit_of(depths)
    parts = split_into_groups(units, n)
    assert [len(part) for part in parts] == expected
    assert [named for part in parts for named in part] == [named for unit in units for named in unit]


def test_no_other_split_is_better():
    depths = [1, 4, 2, 2, 7, 1, 3, 3]
    for n in range(1, len(depths) + 1):
        parts = split_into_groups(unit_of(depths), n)
        cost = sum(sum(depth(module) for _, module in part) ** 2 for part in parts)
        costs = []
        for inner in itertools.combinations(range(1, len(depths)), n - 1):
            borders = [0, *inner, len(depths)]
            costs.append(sum(sum(depths[a:b]) ** 2 for a, b in itertools.pairwise(borders)))
        assert cost == min(costs)


def test_groups_have_names_that_people_use():
    backbone = nn.Sequential(*(nn.Linear(1, 1) for _ in range(4)))
    names = {
        n: [group.name for group in build_groups(find_units(backbone), nn.Linear(1, 2), n)] for n in (2, 3, 4)
    }
    assert names == {
        2: ["backbone", "head"],
        3: ["early backbone", "late backbone", "head"],
        4: ["backbone 1 of 3", "backbone 2 of 3", "backbone 3 of 3", "head"],
    }


@pytest.mark.parametrize("n", [1, 6])
def test_an_impossible_number_of_groups_is_refused_with_the_possible_ones(n):
    backbone = nn.Sequential(*(nn.Linear(1, 1) for _ in range(4)))
    with pytest.raises(ConfigError, match=rf"layer_groups: {n} groups are not possible.*give 2 to 5"):
        build_groups(find_units(backbone), nn.Linear(1, 2), n)


def test_the_largest_possible_number_of_groups_works_on_a_real_network():
    _, backbone = weightless("resnet18")
    units = find_units(backbone)
    assert len(units) == 9  # the stem and eight residual blocks
    groups = build_groups(find_units(backbone), Head(8, 2), len(units) + 1)
    assert all(list(group.parameters()) for group in groups)


def test_a_convolution_keeps_its_normalisation_and_activation():
    backbone = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.ReLU()
    )
    names = [[name for name, _ in unit] for unit in find_units(backbone)]
    assert names == [
        ["backbone.0", "backbone.1", "backbone.2", "backbone.3"],
        ["backbone.4", "backbone.5"],
    ]


def test_a_normalisation_that_begins_a_sequence_stays_with_what_follows():
    downsample = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 8))
    backbone = nn.Sequential(nn.Linear(4, 4), downsample)
    assert [[name for name, _ in unit] for unit in find_units(backbone)] == [["backbone.0"], ["backbone.1"]]


def test_what_comes_before_the_first_affine_layer_belongs_to_it():
    backbone = nn.Sequential(nn.Identity(), nn.Linear(1, 1), nn.Linear(1, 1))
    assert [len(unit) for unit in find_units(backbone)] == [2, 1]


def test_rows_say_which_layers_are_affine_and_count_every_parameter():
    _, backbone = weightless("vit_b_32")
    groups = build_groups(find_units(backbone), Head(768, 2, pool="none"), 2)
    rows = {row["name"]: row for row in layer_rows(groups[0])}
    assert rows["backbone.conv_proj"] == {
        "name": "backbone.conv_proj",
        "type": "Conv2d",
        "affine": True,
        "shape": (768, 3, 32, 32),
        "parameters": 768 * 3 * 32 * 32 + 768,
    }
    attention = rows["backbone.encoder.layers.encoder_layer_0.self_attention"]
    assert (attention["affine"], attention["shape"]) == (True, (3 * 768, 768))
    assert attention["parameters"] == 3 * 768 * 768 + 3 * 768
    token = rows["backbone.encoder.tokens.class_token"]
    assert (token["type"], token["affine"], token["parameters"]) == ("Parameter", False, 768)
    assert rows["backbone.encoder.ln"]["affine"] is False


def test_biases_and_norms_are_not_decayed():
    block = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.LayerNorm([4, 2, 2]), nn.Linear(4, 2)
    )
    assert decayed_names(block) == {"0.weight", "4.weight"}


def test_attention_and_embeddings_are_decayed_without_their_biases():
    parts = nn.ModuleDict({"attention": nn.MultiheadAttention(4, 2), "table": nn.Embedding(3, 4)})
    assert decayed_names(parts) == {"attention.in_proj_weight", "attention.out_proj.weight", "table.weight"}
    biased = nn.MultiheadAttention(4, 2, add_bias_kv=True)  # bias_k and bias_v have three dimensions
    assert decayed_names(biased) == {"in_proj_weight", "out_proj.weight"}


@pytest.mark.parametrize(
    ("name", "never"),
    [
        ("convnext_tiny", "layer_scale"),
        ("swin_t", "relative_position_bias_table"),
        ("swin_v2_t", "logit_scale"),
        ("maxvit_t", "relative_position_bias_table"),
        ("vit_b_32", "class_token"),
        ("vit_b_32", "pos_embedding"),
    ],
)
def test_what_a_block_holds_beside_its_layers_is_not_decayed(name, never):
    _, backbone = weightless(name)
    everything = {key for key, _ in backbone.named_parameters()}
    assert any(never in key for key in everything)
    assert not any(never in key for key in decayed_names(backbone))


@pytest.mark.parametrize("name", ["resnet18", "convnext_tiny", "swin_t", "vit_b_32", "densenet121"])
def test_every_parameter_is_decayed_or_not_and_matrices_are(name):
    _, backbone = weightless(name)
    groups = build_groups(find_units(backbone), Head(8, 2), 3)
    pairs = [pair for group in groups for pair in decayed_parameters(group)]
    assert len(pairs) == len(list(backbone.parameters())) + 8
    assert all(parameter.ndim >= 2 for parameter, decayed in pairs if decayed)
    kernels = [m.weight for m in backbone.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    decayed = {id(parameter) for parameter, is_decayed in pairs if is_decayed}
    assert {id(kernel) for kernel in kernels} <= decayed


def test_the_first_group_counts_as_the_others_do():
    """One layer more in it would make 1 | 1 + 2 as good as 1 + 1 | 2, and the earlier cut would win."""
    assert [len(part) for part in split_into_groups(unit_of([1, 1, 2]), 2)] == [2, 1]


def test_what_a_library_exempts_from_decay_is_exempt_in_every_group():
    backbone = nn.Sequential(*(nn.Linear(2, 2) for _ in range(4)))
    exempt = frozenset({"backbone.0.weight", "backbone.3.weight"})
    groups = build_groups(find_units(backbone), nn.Linear(2, 2), 3, undecayed=exempt)
    decayed = {id(parameter) for group in groups for parameter, decays in decayed_parameters(group) if decays}
    assert [id(layer.weight) in decayed for layer in backbone] == [False, True, True, False]
    assert [group.undecayed for group in groups] == [exempt, exempt, frozenset()]


def test_the_head_is_called_so_as_in_the_model():
    backbone, head = nn.Sequential(nn.Linear(2, 2)), nn.Linear(2, 2)
    assert build_groups(find_units(backbone), head, 2)[-1].units == (("head", head),)


def test_a_norm_inside_of_an_affine_layer_is_not_decayed():
    class NormedLinear(nn.Linear):
        def __init__(self):
            super().__init__(4, 4)
            self.norm = nn.LayerNorm([2, 2])  # whose weight is a matrix

    assert decayed_names(NormedLinear()) == {"weight"}


def test_the_row_of_a_parameter_has_the_keys_of_every_row():
    _, backbone = weightless("vit_b_32")
    rows = layer_rows(build_groups(find_units(backbone), Head(768, 2, pool="none"), 2)[0])
    assert {tuple(row) for row in rows} == {("name", "type", "affine", "shape", "parameters")}
    token = next(row for row in rows if row["name"].endswith("class_token"))
    assert token["shape"] == (1, 1, 768)
