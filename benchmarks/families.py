"""Cut one architecture of every family of timm, and print a table of what came of it.

    python benchmarks/families.py > families.md

Each row is the architecture with the fewest parameters of one module of timm, with random weights on the
meta device: the shape of its features, its units, the parameters of both groups of its backbone, and whether
it takes images of about half and one and a half times the size of its weights, in multiples of 32.
"""

from collections import defaultdict
from collections.abc import Iterator

import timm
import torch

from finetune.errors import ConfigError
from finetune.model.architecture import TIMM, Architecture
from finetune.model.backbone import backbone_units, build_backbone, check_size
from finetune.model.catalogue import find_architecture
from finetune.model.layer_groups import split_into_groups
from finetune.model.surgery import feature_shape


def main() -> None:
    """Print the table."""
    print("| family | architecture | size | features | units | early, late | other sizes |")
    print("|---|---|---|---|---|---|---|")
    for family, name in smallest_members():
        print(f"| {family} | {' | '.join(row(name))} |", flush=True)


def smallest_members() -> Iterator[tuple[str, str]]:
    """Yield every family of timm with the name of its architecture of the fewest parameters."""
    families = defaultdict(list)
    for name in timm.list_models():
        families[timm.model_entrypoint(name).__module__.rpartition(".")[2]].append(name)
    for family, names in sorted(families.items()):
        yield family, min(names, key=parameters)


def parameters(name: str) -> int:
    """Count the parameters of an architecture."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in timm.create_model(name).parameters())


def row(name: str) -> list[str]:
    """Return the cells about one architecture."""
    arch = find_architecture(f"{TIMM}{name}")
    with torch.device("meta"):
        backbone = build_backbone(arch, arch.image_size)
    units = backbone_units(backbone)
    groups = split_into_groups(units, 2)
    sizes = [sum(p.numel() for _, module in group for p in module.parameters()) for group in groups]
    shape = "×".join(map(str, feature_shape(backbone, arch.image_size)))
    return [
        name,
        str(arch.image_size),
        shape,
        str(len(units)),
        ", ".join(f"{n:,}" for n in sizes),
        others(arch),
    ]


def others(arch: Architecture) -> str:
    """Say which of two other sizes an architecture takes, or why not."""
    refused = {}
    for size in (arch.image_size // 64 * 32, arch.image_size // 64 * 96):
        try:
            check_size(arch, size)
        except ConfigError as error:
            refused[size] = str(error).partition("(")[2].partition(").\n")[0]
    if len(set(refused.values())) == 1 and len(refused) == 2:
        return f"no: {next(iter(refused.values()))}"
    return "; ".join(f"{size} no: {why}" for size, why in refused.items()) or "yes"


if __name__ == "__main__":
    main()
