"""The loaders of an experiment: training images as a stage shows them, validation images at one size."""

from finetune.choices import Augment
from finetune.config.sections import StageConfig
from finetune.data.loading.dataset import EvalImages, TrainImages
from finetune.data.loading.draws import device_transform
from finetune.data.loading.loaders import ImageLoader, build_eval_loader, build_train_loader, end_workers
from finetune.data.loading.transforms import eval_transform, train_transform
from finetune.experiment.build import Experiment, balance_weights, loader_workers
from finetune.experiment.ranks import batch_share
from finetune.training.events import Loaders


class StageLoaders:
    """The loaders of each stage; stages in a row that show images in the same way share theirs."""

    def __init__(self, experiment: Experiment, *, most_val: int | None = None) -> None:
        """Build the validation loader, of at most `most_val` images; those for training when asked for."""
        self._experiment = experiment
        self._val = build_val_loader(experiment, most_val)
        self._train: ImageLoader | None = None
        self._shown: tuple[int, Augment] | None = None

    def of_stage(self, number: int) -> Loaders:
        """Return the loaders of a stage, counted from 0; those of an earlier one are no longer for use."""
        shown = how_shown(self._experiment, self._experiment.config.stages[number])
        if self._train is None or shown != self._shown:
            if self._train is not None:
                end_workers(self._train)
            self._train, self._shown = _build_stage_loader(self._experiment, *shown), shown
        return Loaders(self._train, self._val, self._experiment.device)

    def end_workers(self) -> None:
        """Let the processes that load images end by themselves."""
        end_workers(self._val)
        if self._train is not None:
            end_workers(self._train)


def build_loaders(experiment: Experiment, number: int = 0) -> Loaders:
    """Build the training and validation loaders of a stage, counted from 0."""
    return StageLoaders(experiment).of_stage(number)


def image_size_of(experiment: Experiment, stage: StageConfig) -> int:
    """Return the side in pixels of the images that a stage trains on."""
    return stage.image_size or experiment.model.preprocessing.image_size


def how_shown(experiment: Experiment, stage: StageConfig) -> tuple[int, Augment]:
    """Return the size of a stage's images, and how they are varied."""
    augment = "none" if stage.views == "eval" else experiment.config.data.augment
    return image_size_of(experiment, stage), augment


def _build_stage_loader(experiment: Experiment, image_size: int, augment: Augment) -> ImageLoader:
    config, index = experiment.config, experiment.index
    preprocessing = experiment.model.preprocessing.scaled_to(image_size)
    build = device_transform if config.data.augment_on == "device" else train_transform
    transform = build(augment, preprocessing)
    return build_train_loader(
        TrainImages(index, experiment.limits, transform),
        batch_size=config.data.images_per_step,
        seed=config.seed,
        workers=loader_workers(experiment),
        device=experiment.device,
        class_weights=balance_weights(config, index) if config.data.balance == "sampler" else None,
        share=batch_share(config, experiment.ranks),
    )


def build_val_loader(experiment: Experiment, most_images: int | None = None) -> ImageLoader:
    """Build the loader of the validation images, or of at most `most_images` of them, evenly spaced."""
    index = experiment.index if most_images is None else experiment.index.thinned("val", most_images)
    transform = eval_transform(experiment.model.preprocessing)
    return build_eval_loader(
        EvalImages(index, experiment.limits, transform, split="val"),
        batch_size=experiment.config.data.batch_size,
        workers=loader_workers(experiment),
        device=experiment.device,
        ranks=experiment.ranks,
    )
