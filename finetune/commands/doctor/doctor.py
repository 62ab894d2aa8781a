"""The story of `finetune doctor`: whether a training would work here, and what a bug report should say.

What it prints can be pasted into a public page: no names of people, machines or private folders are in it.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from finetune.commands.doctor.facts import places, resources, system, unmet_requirements, variables, versions
from finetune.commands.doctor.privacy import without_names
from finetune.commands.doctor.self_test import SelfTest
from finetune.commands.doctor.trouble import Place, Resources, Trouble, broken_library, troubles_of
from finetune.display import Display
from finetune.machine.quick_imports import quick_torch_imports
from finetune.text import counted, shown_size

_SHOWN = 6  # architectures


@dataclass(frozen=True)
class Devices:
    """What torch computes on."""

    chosen: str
    """of `device: auto`: cuda, mps or cpu"""
    names: tuple[str, ...]
    precision: str
    """of `precision: auto`"""
    fast_bfloat16: bool
    """whether the device computes in bfloat16 rather than emulating it"""
    threads: int


@dataclass(frozen=True)
class Checkup:
    """What was found."""

    versions: Mapping[str, str]
    system: Mapping[str, str]
    variables: Mapping[str, str]
    resources: Resources
    places: Sequence[Place]
    devices: Devices | None
    """None where torch cannot be imported"""
    weights: Sequence[str]
    """architectures whose pretrained weights need no download"""
    troubles: Sequence[Trouble]
    self_test: SelfTest | None = None
    """None where it failed, or was left out"""

    @property
    def exit_code(self) -> int:
        """Return 0 where training would work, else the code of the first trouble that keeps it from it."""
        return next((trouble.exit_code for trouble in self.troubles if trouble.exit_code), 0)

    def to_dict(self) -> dict[str, Any]:
        """Return the checkup as `doctor --json` documents it."""
        return {"ok": self.exit_code == 0, "exit_code": self.exit_code, **asdict(self)}


def examine() -> Checkup:
    """Look at versions, devices, cores, memory, folders and weights; train nothing."""
    troubles = list(unmet_requirements())
    devices, weights = None, list[str]()
    broken = _import_torch()
    if broken is None:
        devices, unused = _devices()
        troubles += unused
        weights = _weights()
    else:
        troubles.append(broken)
    found = resources(None if devices is None else devices.threads)
    folders = places()
    troubles += troubles_of(found, folders)
    cleaned = [Trouble(without_names(one.what), without_names(one.fix), one.exit_code) for one in troubles]
    return Checkup(versions(), system(), variables(), found, folders, devices, weights, cleaned)


def with_self_test(checkup: Checkup, result: SelfTest | Trouble) -> Checkup:
    """Return the checkup with what came of the self-test."""
    if isinstance(result, SelfTest):
        return replace(checkup, self_test=result)
    return replace(checkup, troubles=[*checkup.troubles, result])


def show(checkup: Checkup, display: Display) -> None:
    """Show what was found, a line for each thing."""
    for name, number in {**checkup.versions, **checkup.system}.items():
        display.say(f"{name:<16} {number}")
    for line in (*_device_lines(checkup), *_resource_lines(checkup.resources)):
        display.say(line)
    for place in checkup.places:
        state = "" if place.writable else ", not writable"
        free = "" if place.free is None else f", {shown_size(place.free)} free"
        display.say(f"{'folder':<16} {place.what}: {place.shown}{free}{state}")
    listed = ", ".join(checkup.weights[:_SHOWN])
    more = f" and {len(checkup.weights) - _SHOWN} more" if len(checkup.weights) > _SHOWN else ""
    display.say(f"{'weights here':<16} {f'{listed}{more}' or 'none but builtin:glyphs'}")
    for name, value in checkup.variables.items():
        display.say(f"{'variable':<16} {name}={without_names(value)}")


def show_verdict(checkup: Checkup, display: Display) -> None:
    """Show the self-test, what is wrong and how to fix it, and whether training would work."""
    if (test := checkup.self_test) is not None:
        display.say(
            f"{'self-test':<16} trained in {test.train_seconds:.1f} s ({test.accuracy:.0%} of the digits "
            f"right), predicted in {test.predict_seconds:.1f} s"
        )
    for trouble in checkup.troubles:
        kind = "error" if trouble.exit_code else "warning"
        display.say(f"{kind}: {trouble.what}\n  {trouble.fix}")
    warned = counted(len(checkup.troubles), "warning")
    verdict = f"training works here, with {warned}" if checkup.troubles else "training works here"
    display.say("training would not work here" if checkup.exit_code else verdict)


def _import_torch() -> Trouble | None:
    """Import the libraries that training is built on; return what is wrong with the first that fails."""
    for name in ("torch", "torchvision", "fastai.learner"):
        try:
            with quick_torch_imports(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what libraries say of each other is no trouble
                __import__(name)
        # A library that was built for another torch fails in its own ways.
        except (ImportError, OSError, RuntimeError, AttributeError) as error:
            return broken_library(name.partition(".")[0], error)
    return None


def _devices() -> tuple[Devices, list[Trouble]]:
    import torch

    from finetune.machine.device import (
        choose_device,
        choose_precision,
        describe,
        has_fast_bfloat16,
        unused_gpu,
    )

    device = choose_device("auto")
    names = tuple(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
    fast = has_fast_bfloat16(device)
    first, _, rest = unused_gpu(device).partition("\n")
    troubles = [Trouble(f"{first}.", f"Fix the driver or the torch build; {rest}")] if first else []
    precision = choose_precision("bfloat16" if fast else "float32", device)
    found = Devices(device.type, names or (describe(device),), precision, fast, torch.get_num_threads())
    return found, troubles


def _weights() -> list[str]:
    from finetune.model.at_hand import architectures_at_hand

    return [arch.name for arch, _ in architectures_at_hand()]


def _device_lines(checkup: Checkup) -> list[str]:
    devices = checkup.devices
    if devices is None:
        return []
    bfloat16 = "in hardware" if devices.fast_bfloat16 else "emulated or slow"
    return [
        f"{'device':<16} {devices.chosen}: {', '.join(devices.names)}",
        f"{'precision':<16} {devices.precision} (bfloat16 is {bfloat16})",
    ]


def _resource_lines(found: Resources) -> list[str]:
    quota = "" if found.quota is None else f", of which the container may take {found.quota:g}"
    threads = "" if found.threads is None else f"; {counted(found.threads, 'thread')}"
    lines = [f"{'cores':<16} {found.cores}{quota}{threads}"]
    for name, size in (("memory", found.memory), ("shared memory", found.shared_memory)):
        if size is not None:
            lines.append(f"{name:<16} {shown_size(size)}{' free' if name != 'memory' else ''}")
    return lines
