"""Say on paper what a training on many nodes would cost, and what breaks first. Nothing here runs on one.

    python benchmarks/many_nodes.py                       # 64 nodes of 8 GPUs
    python benchmarks/many_nodes.py --nodes 8 --gpus 4 --network 200

Counted on this machine: the parameters of the networks with finetune's head, what a checkpoint holds, and
the files that a process opens and the bytes that it reads until it could train. Assumed, and to be set: the
network (gigabits per second of a node, in each direction), how many images a GPU trains on per second, and
what a shared file system bears. The sums of a step go once around a ring of nodes (Patarasuk and Yuan, 2009):
each node sends and receives 2 (n − 1) / n of the bytes, in 2 (n − 1) messages; within a node they cost
nothing here. None of it overlaps with computing.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from finetune.model.classifier import build_classifier
from finetune.model.spec import ModelSpec

NETWORKS = {"resnet50": 2500.0, "efficientnet_b0": 2500.0}
"""images a second of one GPU in a step that trains all layers: an assumption"""
CLASSES = 10
_MESSAGE = 20e-6  # seconds that one message between nodes takes at least

_READS = """
import json, os, sys
opened = []
sys.addaudithook(lambda event, arguments: opened.append(arguments[0]) if event == "open" else None)
import finetune.cli.training, finetune.training.loop, finetune.commands.train.train
paths = {path for path in opened if isinstance(path, str) and os.path.isfile(path) and path[0] == "/"}
with open("/proc/self/maps") as maps:
    libraries = {line.split(maxsplit=5)[5].strip() for line in maps if ".so" in line}
of = lambda found: [len(found), sum(os.path.getsize(path) for path in found if os.path.exists(path))]
print(json.dumps([of(paths - libraries), of(libraries)]))
"""


@dataclass(frozen=True)
class Cluster:
    """What is assumed of it."""

    nodes: int
    gpus: int
    network: float
    """gigabits per second of a node"""
    opens: float
    """files that the shared file system opens per second"""
    disk: float
    """gigabytes per second that it reads or writes"""

    def ring(self, sent: float) -> float:
        """Return the seconds in which all nodes have the sum of some bytes of each."""
        share = 2 * (self.nodes - 1) / self.nodes
        return share * sent / (self.network * 1e9 / 8) + 2 * (self.nodes - 1) * _MESSAGE


def count(arch: str) -> tuple[int, int, int]:
    """Return the parameters of the whole network, those of its head, and the values of its buffers."""
    spec = ModelSpec(arch, CLASSES)
    model = build_classifier(spec, weights="none", seed=0)
    whole, head = (sum(p.numel() for p in part.parameters()) for part in (model, model.head))
    return whole, head, sum(buffer.numel() for buffer in model.buffers())


def show(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: the first column flush left, numbers flush right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        print("  ".join([row[0].ljust(widths[0]), *cells]))


def show_steps(cluster: Cluster, batch: int) -> None:
    """Print what a step sends, and how much of a step computes."""
    print(f"{batch} images a GPU, gradients in float32")
    rows = []
    for arch, rate in NETWORKS.items():
        whole, head, _ = count(arch)
        # A forward pass, with which the head is trained, is a third of a step that trains all layers.
        for what, parameters, seconds in (("head", head, batch / (3 * rate)), ("all", whole, batch / rate)):
            sums = cluster.ring(4 * parameters)
            sent = 2 * (cluster.nodes - 1) / cluster.nodes * 4 * parameters
            rows.append(
                (
                    f"{arch}, {what}",
                    f"{parameters / 1e6:.2f} M",
                    f"{sent / 1e6:.1f} MB",
                    f"{1e3 * sums:.1f} ms",
                    f"{1e3 * seconds:.1f} ms",
                    f"{seconds / (seconds + sums):.0%}",
                )
            )
    show(("network, what learns", "parameters", "a node sends", "sums", "computing", "share of it"), rows)


def show_checkpoints(cluster: Cluster) -> None:
    """Print how long a checkpoint takes: one process writes it, the others wait."""
    rows = []
    for arch in NETWORKS:
        whole, _, buffers = count(arch)
        size = 4 * (3 * whole + buffers)  # weights, two moments of Adam, buffers
        rows.append((arch, f"{size / 1e6:.0f} MB", f"{size / cluster.disk / 1e9:.2f} s"))
    print()
    show(("network", "checkpoint", "written in"), rows)


def show_start(cluster: Cluster) -> None:
    """Print what it takes until every process has its modules."""
    done = subprocess.run([sys.executable, "-c", _READS], capture_output=True, text=True, check=True)
    (files, size), (libraries, library_size) = json.loads(done.stdout)
    opened = cluster.nodes * cluster.gpus * (files + libraries)
    read = (size + library_size) * cluster.nodes
    print(f"\none process: {files:,} files of {size / 1e6:,.0f} MB", end=", ")
    print(f"{libraries:,} libraries of {library_size / 1e6:,.0f} MB")
    print(f"all {cluster.nodes * cluster.gpus:,} open {opened:,} files: {opened / cluster.opens:,.0f} s")
    print(f"{cluster.nodes:,} nodes read {read / 1e9:,.0f} GB, each once: {read / cluster.disk / 1e9:,.0f} s")


def show_batch(cluster: Cluster, batch: int) -> None:
    """Print how many images it takes for there to be steps."""
    together = batch * cluster.nodes * cluster.gpus
    print(f"\na step takes {together:,} images: an epoch of 8 steps needs {8 * together:,}")
    for images in (10_000, 100_000, 1_281_167):
        print(f"  {images:,} images: {images / together:,.1f} steps an epoch")


def main() -> None:
    """Print all of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=64)
    parser.add_argument("--gpus", type=int, default=8, help="of each node")
    parser.add_argument("--batch", type=int, default=64, help="images a GPU and step")
    parser.add_argument("--network", type=float, default=100, help="gigabits per second of a node")
    parser.add_argument(
        "--opens", type=float, default=10_000, help="files that the file system opens a second"
    )
    parser.add_argument("--disk", type=float, default=2, help="gigabytes per second of the file system")
    given = parser.parse_args()
    cluster = Cluster(given.nodes, given.gpus, given.network, given.opens, given.disk)
    print(f"{cluster}\n")
    show_steps(cluster, given.batch)
    show_checkpoints(cluster)
    show_start(cluster)
    show_batch(cluster, given.batch)


if __name__ == "__main__":
    main()
