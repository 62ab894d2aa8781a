"""Transfer learning on images from one YAML file, done right.

    import finetune

    run = finetune.train("photos", stages__frozen__epochs=3)
    model = finetune.load(run)
    model.predict("new.jpg").label

Importing this package imports nothing else: torch takes seconds, so each name is looked up when it is used.
"""

from finetune.version import VERSION

TYPE_CHECKING = False  # type checkers know the name; `typing` would take most of the time of this import

if TYPE_CHECKING:
    from finetune.api.evaluate import evaluate
    from finetune.api.lr_find import LrFind, lr_find
    from finetune.api.model import Model, load
    from finetune.api.prediction import Prediction
    from finetune.api.questions import auto, check, curve, labels, rank
    from finetune.api.run import Run
    from finetune.api.train import train
    from finetune.config.config import Config
    from finetune.config.data import DataConfig
    from finetune.config.optimizer import OptimizerConfig
    from finetune.config.sections import HeadConfig, ModelConfig, StageConfig
    from finetune.errors import (
        CheckpointError,
        ConfigError,
        DataError,
        DivergenceError,
        FinetuneError,
        Interrupted,
        MachineError,
        ResourceError,
        RunError,
        Stopped,
        WeightsError,
    )

__all__ = [
    "CheckpointError",
    "Config",
    "ConfigError",
    "DataConfig",
    "DataError",
    "DivergenceError",
    "FinetuneError",
    "HeadConfig",
    "Interrupted",
    "LrFind",
    "MachineError",
    "Model",
    "ModelConfig",
    "OptimizerConfig",
    "Prediction",
    "ResourceError",
    "Run",
    "RunError",
    "StageConfig",
    "Stopped",
    "WeightsError",
    "__version__",
    "auto",
    "check",
    "curve",
    "evaluate",
    "labels",
    "load",
    "lr_find",
    "rank",
    "train",
]

__version__ = VERSION

_HOMES = {
    "evaluate": "api.evaluate",
    "LrFind": "api.lr_find",
    "lr_find": "api.lr_find",
    "Model": "api.model",
    "load": "api.model",
    "Prediction": "api.prediction",
    **dict.fromkeys(("auto", "check", "curve", "labels", "rank"), "api.questions"),
    "Run": "api.run",
    "train": "api.train",
    "Config": "config.config",
    "DataConfig": "config.data",
    "OptimizerConfig": "config.optimizer",
    "HeadConfig": "config.sections",
    "ModelConfig": "config.sections",
    "StageConfig": "config.sections",
}

if not TYPE_CHECKING:  # a type checker that saw it would take every misspelt name for one of ours

    def __getattr__(name):
        """Import what a name stands for, the first time that it is used."""
        from contextlib import nullcontext
        from importlib import import_module

        from finetune.machine.quick_imports import quick_torch_imports

        if name not in __all__:
            raise AttributeError(f"module 'finetune' has no attribute {name!r}", name=name, obj=None)
        home = _HOMES.get(name, "errors")
        with quick_torch_imports() if home.startswith("api.") else nullcontext():
            value = getattr(import_module(f"finetune.{home}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
