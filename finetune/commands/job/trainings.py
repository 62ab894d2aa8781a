"""The trainings of a job: which configs with which overrides, each in a run directory of its own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os.path import isfile
from pathlib import Path

from finetune.choices import ARCHIVE_SUFFIXES, PACKED_SUFFIXES, TABLE_SUFFIXES
from finetune.commands.settings import is_data, read_settings
from finetune.config.config import Config
from finetune.errors import ConfigError
from finetune.text import expanded, printable, shortened

MOST_TRAININGS = 1000
"""of one job: no Slurm takes larger arrays unless it is told to"""


@dataclass(frozen=True)
class Training:
    """One run of a job, which the same command starts and resumes."""

    name: str
    """of the run directory, and of the job where it is the only one"""
    config: Path
    settings: Config
    overrides: tuple[str, ...]
    run_dir: Path

    def command(self) -> list[str]:
        """Return what is run; it starts the run, resumes it, or says that it is finished."""
        return [
            *("finetune", "train", as_argument(self.config), *self.overrides),
            *("--run-dir", as_argument(self.run_dir), "--resume"),
        ]


def plan_trainings(
    arguments: Sequence[str], *, seeds: Sequence[int], run_dir: Path | None, on_gpu: bool
) -> list[Training]:
    """Check configs and return a training for each of them, and for each of some seeds.

    Args:
        arguments: configs, and values for keys of all of them (`key=value`).
        seeds: in place of that of the configs; none leaves them theirs.
        run_dir: the run directory of a single training, or the folder of those of several.
        on_gpu: whether GPUs are requested, which the trainings are then told to use.

    Raises:
        ConfigError: a config with mistakes, two of one name, or none of a file.
    """
    configs = [Path(argument) for argument in arguments if "=" not in argument or isfile(argument)]
    if not configs:
        raise ConfigError("Name a config: finetune job photos.yaml --slurm")
    overrides = [argument for argument in arguments if Path(argument) not in configs]
    each_seed: list[int | None] = [*seeds] or [None]
    count = len(configs) * len(each_seed)
    if count > MOST_TRAININGS:
        raise ConfigError(
            f"{count:,} trainings in one job; at most {MOST_TRAININGS:,} are written.\n"
            "Name fewer configs or --seeds, and write several jobs."
        )
    trainings = []
    for config in configs:
        for seed in each_seed:
            more = [] if seed is None else [f"seed={seed}"]
            settings = _checked(config, [*overrides, *more])
            name = config.stem if seed is None else f"{config.stem}-seed{seed}"
            device = _device(config, settings, on_gpu=on_gpu)
            folder = expanded(settings.output.dir) / name
            if run_dir is not None:
                folder = run_dir if count == 1 else run_dir / name
            trainings.append(Training(name, config, settings, (*overrides, *more, *device), folder))
    _check_names(trainings)
    return trainings


def absolute_paths(settings: Config) -> Iterator[tuple[str, Path]]:
    """Return the keys of a config that name a file or folder with its whole path, and these."""
    data = settings.data
    named = {
        "data.path": data.path,
        "data.image_folder": data.image_folder,
        "data.corrections": data.corrections,
        "data.exclude": data.exclude,
        "data.val": data.val,
        "model.weights": settings.model.weights,
    }
    for key, value in named.items():
        if isinstance(value, str) and value.startswith(("/", "~")):
            yield key, expanded(value)


def data_folder(path: Path) -> Path:
    """Return the folder that holds a data set: itself, or that of a table or archive. It need not exist."""
    is_file = path.suffix.lower() in TABLE_SUFFIXES + ARCHIVE_SUFFIXES + PACKED_SUFFIXES
    return path.parent if is_file else path


def as_argument(path: Path) -> str:
    """Return a path that no command takes for an option.

    Raises:
        ConfigError: it is not UTF-8, which the file of a job is written in.
    """
    text = str(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{text!r}: the name is not UTF-8, so no job can hold it; rename it.") from None
    return f"./{text}" if text.startswith("-") else text


def _checked(config: Path, overrides: Sequence[str]) -> Config:
    """Read a config.

    Raises:
        ConfigError: it has mistakes, or there is no file of it.
    """
    if is_data(config):
        raise ConfigError(
            f"{config}: a job needs a config in a file, which no machine fills with defaults of its own.\n"
            f"Write one first: finetune init {config}"
        )
    as_argument(config)
    return read_settings(config, overrides)[0]


def _device(config: Path, settings: Config, *, on_gpu: bool) -> tuple[str, ...]:
    """Return the override that keeps a training that waited for a GPU from falling back to the CPU.

    Raises:
        ConfigError: the config asks for another device than the job.
    """
    if on_gpu and settings.device in ("cpu", "mps"):
        raise ConfigError(
            f"{config}: device is {settings.device}, and the job requests GPUs.\n"
            "Add --gpus 0, or leave device to the job: device=auto"
        )
    if not on_gpu and settings.device in ("cuda", "mps"):
        raise ConfigError(
            f"{config}: device is {settings.device}, and the job requests no GPU.\n"
            "Leave out --gpus 0, or leave device to the job: device=auto"
        )
    return ("device=cuda",) if on_gpu and settings.device == "auto" else ()


def _check_names(trainings: Sequence[Training]) -> None:
    """Refuse trainings that would share a run directory.

    Raises:
        ConfigError: two of them would.
    """
    known: dict[Path, Training] = {}
    for training in trainings:
        as_argument(training.run_dir)
        other = known.setdefault(training.run_dir, training)
        if other is not training:
            raise ConfigError(
                f"{other.config} and {training.config}: both trainings would have the run directory "
                f"{shortened(printable(str(training.run_dir)))}.\nRename a config, or write two jobs."
            )
