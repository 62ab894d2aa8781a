"""How the tools train that `peers.py` compares: each by its own code, with finetune's weights."""

import hashlib
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from photographs import (
    Outcome,
    Setting,
    outcome_of,
    readable,
    train_fastai,
    train_finetune,
    val_files,
)


@dataclass(frozen=True)
class Peer:
    """A tool, and how it trains here."""

    package: str
    train: Callable[[Path, Setting], Outcome]
    continued: Callable[[Path, Setting, Path], str] | None = None
    """Trains in a folder, from what was saved there if anything was; returns a digest of the weights."""


class Photographs:
    """Images with the number of their class, for PyTorch's loaders."""

    def __init__(self, files: Sequence[tuple[Path, str]], classes: Sequence[str]) -> None:
        self.files, self.classes = files, classes
        self.transform: Callable[[Any], Any] | None = None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        from PIL import Image

        path, label = self.files[index]
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        assert self.transform is not None
        return self.transform(image), self.classes.index(label)


def datasets(folder: Path) -> tuple[Photographs, Photographs]:
    """Return the training and the validation images."""
    train = [(path, path.parent.name) for path in sorted((folder / "train").glob("*/*")) if readable(path)]
    classes = sorted({label for _, label in train})
    return Photographs(train, classes), Photographs(val_files(folder), classes)


def pretrained(model: Any, arch: str) -> Any:
    """Load finetune's weights into a network of timm's but for the head; return the preprocessing."""
    from finetune.model import find_architecture, load_weights

    weights = load_weights("default", find_architecture(arch), lambda _: None)
    own = model.state_dict()
    fitting = {k: v for k, v in (weights.tensors or {}).items() if k in own and own[k].shape == v.shape}
    missing = set(model.load_state_dict(fitting, strict=False).missing_keys)
    head = {
        name for name, _ in model.get_classifier().named_parameters(prefix=model.default_cfg["classifier"])
    }
    assert missing == head, missing ^ head
    return weights.preprocessing


def train_timm(folder: Path, setting: Setting) -> Outcome:
    """Train by what timm's `train.py` puts together."""
    import timm
    import torch
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2

    began = time.perf_counter()
    torch.manual_seed(setting.seed)
    train, val = datasets(folder)
    model = timm.create_model(setting.arch.removeprefix("timm:"), num_classes=len(train.classes))
    preprocessing = pretrained(model, setting.arch)
    loader, val_loader = (timm_loader(part, setting, preprocessing, part is train) for part in (train, val))
    epochs = setting.frozen + setting.epochs
    optimizer = create_optimizer_v2(model, "sgd", lr=0.1 * setting.batch / 256, weight_decay=2e-5)
    scheduler, _ = create_scheduler_v2(
        optimizer, num_epochs=epochs, warmup_epochs=1, step_on_epochs=False, updates_per_epoch=len(loader)
    )
    loss_of = LabelSmoothingCrossEntropy(0.1)
    step = 0
    for _ in range(epochs):
        model.train()
        for images, targets in loader:
            optimizer.zero_grad()
            loss_of(model(images), targets).backward()
            optimizer.step()
            step += 1
            scheduler.step_update(step)
    seconds = time.perf_counter() - began
    model.eval()
    with torch.no_grad():
        right = [bool(hit) for images, y in val_loader for hit in model(images).argmax(1) == y]
    return outcome_of(right, None, [], seconds)


def timm_loader(dataset: Photographs, setting: Setting, preprocessing: Any, is_training: bool) -> Any:
    """Return timm's loader with the augmentation that its `train.py` has by default."""
    from timm.data import create_loader

    return create_loader(
        dataset,
        input_size=(3, setting.size, setting.size),
        batch_size=setting.batch,
        is_training=is_training,
        interpolation="random" if is_training else "bicubic",
        mean=preprocessing.mean,
        std=preprocessing.std,
        num_workers=0,
        use_prefetcher=False,
        device="cpu",
        persistent_workers=False,
    )


def train_transformers(folder: Path, setting: Setting, *, lr: float = 2e-5) -> Outcome:
    """Train as the example of transformers does, with a network of timm's."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        trainer, val = hugging_face(folder, setting, Path(out), lr=lr, save="no")
        trainer.train()
        seconds = time.perf_counter() - began
        predictions = trainer.predict(val)
    right = (predictions.predictions.argmax(1) == predictions.label_ids).tolist()
    return outcome_of(right, None, [], seconds)


def train_transformers_faster(folder: Path, setting: Setting) -> Outcome:
    """Train with a rate for a network whose head is new."""
    return train_transformers(folder, setting, lr=1e-3)


def hugging_face(folder: Path, setting: Setting, out: Path, *, lr: float, save: str) -> tuple[Any, Any]:
    """Return the trainer of `run_image_classification.py`, and the validation images."""
    import torch
    from torchvision import transforms as tv
    from transformers import (
        TimmWrapperConfig,
        TimmWrapperForImageClassification,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    set_seed(setting.seed)
    train, val = datasets(folder)
    config = TimmWrapperConfig(
        architecture=setting.arch.removeprefix("timm:"), num_labels=len(train.classes), do_pooling=True
    )
    model = TimmWrapperForImageClassification(config)
    preprocessing = pretrained(model.timm_model, setting.arch)
    end = [tv.ToTensor(), tv.Normalize(preprocessing.mean, preprocessing.std)]
    train.transform = tv.Compose([tv.RandomResizedCrop(setting.size), tv.RandomHorizontalFlip(), *end])
    val.transform = tv.Compose([tv.Resize(setting.size), tv.CenterCrop(setting.size), *end])
    arguments = TrainingArguments(
        output_dir=str(out),
        learning_rate=lr,
        num_train_epochs=setting.frozen + setting.epochs,
        per_device_train_batch_size=setting.batch,
        per_device_eval_batch_size=setting.batch,
        save_strategy=save,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=setting.seed,
        use_cpu=True,
    )

    def collate(examples: list[tuple[Any, int]]) -> dict[str, Any]:
        images, targets = zip(*examples, strict=True)
        return {"pixel_values": torch.stack(images), "labels": torch.tensor(targets)}

    return Trainer(model=model, args=arguments, train_dataset=train, data_collator=collate), val


def continued_transformers(folder: Path, setting: Setting, out: Path) -> str:
    """Train with a checkpoint after each epoch, from the last one if there is one."""
    from transformers.trainer_utils import get_last_checkpoint

    trainer, _ = hugging_face(folder, setting, out, lr=1e-3, save="epoch")
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(out)) if out.exists() else None)
    return digest(trainer.model.timm_model.state_dict())


def digest(tensors: dict[str, Any]) -> str:
    """Return a digest of tensors, each by its name and bytes."""
    parts = (name.encode() + tensor.numpy().tobytes() for name, tensor in sorted(tensors.items()))
    return hashlib.sha256(b"".join(parts)).hexdigest()


PEERS = {
    "finetune": Peer("finetune", train_finetune),
    "fastai": Peer("fastai", train_fastai),
    "timm": Peer("timm", train_timm),
    "transformers": Peer("transformers", train_transformers, continued_transformers),
    "transformers-1e-3": Peer("transformers", train_transformers_faster),
}
