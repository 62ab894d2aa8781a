"""The model: pretrained networks of torchvision and timm, without their classifier, under a new head."""

from finetune.model.architecture import Architecture
from finetune.model.catalogue import architectures, find_architecture
from finetune.model.classifier import ImageClassifier, build_classifier, rebuild_classifier
from finetune.model.preprocessing import Preprocessing
from finetune.model.spec import HeadSpec, ModelSpec
from finetune.model.weights import Weights, load_weights, pending_download

__all__ = [
    "Architecture",
    "HeadSpec",
    "ImageClassifier",
    "ModelSpec",
    "Preprocessing",
    "Weights",
    "architectures",
    "build_classifier",
    "find_architecture",
    "load_weights",
    "pending_download",
    "rebuild_classifier",
]
