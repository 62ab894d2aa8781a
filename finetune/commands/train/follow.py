"""The story of a training as the ranks after the first go through it: the same steps, and nothing written."""

from finetune.commands.prepare import prepare
from finetune.commands.train.alike import check_alike
from finetune.commands.train.stages import run_stages, with_rates
from finetune.commands.train.status import known_failure
from finetune.commands.train.train import open_record
from finetune.config.config import Config
from finetune.display import Display
from finetune.errors import Stopped
from finetune.machine.ranks import Ranks
from finetune.machine.signals import StopSignals
from finetune.runs.checkpointer import Saved
from finetune.runs.unwritten import UnwrittenRun


def follow(config: Config, display: Display, ranks: Ranks) -> None:
    """Train together with rank 0, which decides what is trained from where.

    Args:
        config: the experiment, which has to be that of rank 0.
        display: where to show nothing but warnings.
        ranks: the processes that train together.

    Raises:
        FinetuneError: as in `train`, or the one with which another rank ended.
    """
    check_alike(ranks, config)
    with StopSignals(ranks) as stop:
        try:
            _follow(stop, display, ranks)
        except KeyboardInterrupt:
            raise Stopped(f"Stopped by {stop.received}.\nStart it again with --resume.") from None
        except (RuntimeError, MemoryError) as failure:
            known = known_failure(failure, config.data.batch_size)
            if known is None:
                raise
            raise known from failure


def _follow(stop: StopSignals, display: Display, ranks: Ranks) -> None:
    to_train: Config | None = ranks.of_first(None)
    if to_train is None:
        return  # the run is finished
    experiment = prepare(to_train, display, ranks)
    training = open_record(UnwrittenRun(), experiment, stop, display)
    saved: Saved | None = ranks.of_first(None)
    if saved is not None:
        experiment = with_rates(experiment, saved.lrs)
        training.checkpointer.restore(saved)
    run_stages(training, experiment, saved)
