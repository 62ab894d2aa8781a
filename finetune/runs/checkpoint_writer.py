"""Write checkpoints in a thread, from one copy of their tensors, while the training goes on."""

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from finetune.runs.checkpoints import CheckpointFolder, Stored

_ALIGNMENT = 64  # bytes; that of any number format, and of a line of the processor's cache


def writes_in_thread(device: torch.device) -> bool:
    """Tell whether a training on a device goes on while it is saved; a CPU would hash instead of training."""
    return device.type != "cpu"


class CheckpointWriter:
    """Hashes and writes checkpoints in a thread, one at a time and in order."""

    def __init__(self, folder: CheckpointFolder, *, keep: int) -> None:
        self._folder, self._keep = folder, keep
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._copy = HostCopy()
        self._writing: tuple[str, Future[float]] | None = None

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._writing is not None and not self._writing[1].done()

    def start(self, checkpoint: Stored) -> None:
        """Copy the tensors of a checkpoint, and begin to write it; the one before has to be finished."""
        assert self._writing is None
        copied = Stored(checkpoint.name, self._copy.of(checkpoint.tensors), checkpoint.state)
        self._writing = copied.name, self._executor.submit(self._write, copied)

    def finish(self) -> tuple[str, float] | None:
        """Wait for the checkpoint that is being written; return its name and the seconds that it took.

        None where there is none that nobody has asked for yet.

        Raises:
            ResourceError: the disk is full; earlier checkpoints are intact.
        """
        if self._writing is None:
            return None
        (name, writing), self._writing = self._writing, None
        return name, writing.result()

    def close(self) -> None:
        """End the thread, after what it has begun."""
        self._executor.shutdown()

    def _write(self, checkpoint: Stored) -> float:
        began = time.perf_counter()
        self._folder.save(checkpoint, keep=self._keep)
        return time.perf_counter() - began


class HostCopy:
    """A copy of many tensors in one block of the CPU's memory, which is used again for the next copy.

    For tensors of a GPU the block is pinned: all of them are asked for at once, and waited for once.
    """

    def __init__(self) -> None:
        self._block = torch.empty(0, dtype=torch.uint8)

    def of(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return contiguous copies, on the CPU, which hold until the next call."""
        ends, end = [], 0
        for tensor in tensors.values():
            end = -(-end // _ALIGNMENT) * _ALIGNMENT + tensor.numel() * tensor.element_size()
            ends.append(end)
        gpus = {tensor.device for tensor in tensors.values() if tensor.is_cuda}
        if self._block.numel() < end:
            self._block = torch.empty(end, dtype=torch.uint8, pin_memory=bool(gpus))
        copies = {}
        for (name, tensor), last in zip(tensors.items(), ends, strict=True):
            piece = self._block[last - tensor.numel() * tensor.element_size() : last]
            copies[name] = piece.view(tensor.dtype).view(tensor.shape)
            copies[name].copy_(tensor.detach(), non_blocking=tensor.is_cuda)
        for gpu in gpus:
            torch.cuda.current_stream(gpu).synchronize()
        return copies
