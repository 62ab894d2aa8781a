"""Every choice that a config and the code make among fixed words, and file endings; each is listed once."""

from collections.abc import Mapping
from typing import Literal

# Machine and arithmetic
DeviceName = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["float32", "bfloat16"]
PrecisionSetting = Literal["auto", Precision]
Sharding = Literal["none", "weights"]
"""What the processes of a training divide among them, beside the images of each batch."""
MemoryFormat = Literal["channels_last", "contiguous"]

# Data
Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Kind = Literal["auto", "category", "number"]
"""What a metadata column holds."""
Augment = Literal["none", "light", "standard", "strong", "randaugment", "trivial"]
AugmentOn = Literal["cpu", "device"]
"""Where images are varied: one by one by what loads them, or a batch at a time where the model computes."""
ON_DEVICE: tuple[Augment, ...] = ("none", "light", "standard")
"""The levels that a device can do to the same grey levels."""
Balance = Literal["none", "sampler", "loss"]
OnBad = Literal["stop", "skip"]
"""What to do about an image that cannot be read."""
SixteenBit = Literal["scale", "stop"]
Cache = Literal["auto", "off", "memory", "disk"]
"""Where images are kept that are decoded once."""
CaseVariants = Literal["stop", "allow"]
Uncertain = Literal["stop", "absent", "present"]
"""What to make of blanks and −1 beside 0 and 1."""
FolderLayout = Literal["auto", "classes", "groups", "classes/groups", "innermost"]
"""What the folders directly in a data set are, where their names and contents do not settle it."""

# Model
Pool = Literal["avg+max", "avg", "max"]
HeadPool = Literal[Pool, "none"]
"""`none` for features that are vectors already."""
TrainedPart = Literal["head", "all"]
"""which layer groups a stage trains, where their number is not written out"""
Features = Literal["auto", "live", "cached"]
"""Whether a head is trained on features that are computed anew for each epoch, or once for each view."""
BatchNorm = Literal["auto", "still", "train"]
"""What batch normalisation does in a stage; `auto` decides by whether the backbone is pretrained."""
Scheduler = Literal["slurm", "kubernetes"]
ContainerEngine = Literal["apptainer", "enroot"]
"""What runs a container on a cluster; `enroot` through the plugin pyxis."""
RunOrder = Literal["when", "accuracy", "map", "loss", "time", "name"]
LoggerName = Literal["tensorboard", "wandb", "mlflow"]
ExportFormat = Literal["onnx", "torch", "timm"]
ExportPrecision = Literal["float32", "float16", "int8"]
Interpolation = Literal["bilinear", "bicubic", "nearest"]

# Optimizer and learning rate
OptimizerName = Literal[
    "sgd",
    "momentum",
    "nesterov",
    "adagrad",
    "rmsprop",
    "adadelta",
    "adam",
    "adamw",
    "nadam",
    "radam",
    "ranger",
    "lamb",
    "lion",
]
Decay = Literal["decoupled", "l2"]
Form = Literal["ema", "classic"]
Spacing = Literal["geometric", "linear"]
OwnHeuristic = Literal["knee", "steepest", "minimum", "slide", "valley"]
Heuristic = str
"""One of ours, or of an installed package."""
OwnPick = Literal["race", OwnHeuristic]

# Loss and scores
LossName = Literal["cross_entropy", "binary_cross_entropy", "focal"]
LossSetting = Literal["auto", LossName]
OwnMonitor = Literal["val_accuracy", "val_balanced_accuracy", "val_macro_f1", "val_map", "val_loss"]
Monitor = str
"""One of ours, or `val_` and the name of an installed package's metric."""
OwnMonitorSetting = Literal["auto", OwnMonitor]

# Sweeps
SamplerName = Literal["tpe", "random", "grid"]
PrunerName = Literal["none", "median", "halving"]
EngineName = Literal["local", "ray"]
StudyStorage = Literal["sqlite", "journal"]
"""How the trials of a sweep are kept."""
DimensionKind = Literal["log", "uniform", "int", "choices"]
"""How the values of a key are spread."""
TrialStatus = Literal["done", "pruned", "failed", "running"]

# Files and folders of a data set
IMAGE_ENDINGS: Mapping[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif", ".avifs"),
    "HEIF": (".heic", ".heics", ".heif", ".heifs", ".hif"),
    "JPEG2000": (".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c"),
    "PPM": (".pbm", ".pgm", ".ppm", ".pnm", ".pfm"),
    "BLP": (".blp",),
    "CUR": (".cur",),
    "DCX": (".dcx",),
    "DDS": (".dds",),
    "DIB": (".dib",),
    "FITS": (".fit", ".fits"),
    "FLI": (".fli", ".flc"),
    "FTEX": (".ftc", ".ftu"),
    "GBR": (".gbr",),
    "ICNS": (".icns",),
    "ICO": (".ico",),
    "IM": (".im",),
    "MSP": (".msp",),
    "PCD": (".pcd",),
    "PCX": (".pcx",),
    "PIXAR": (".pxr",),
    "PSD": (".psd",),
    "QOI": (".qoi",),
    "SGI": (".bw", ".rgb", ".rgba", ".sgi"),
    "SUN": (".ras",),
    "TGA": (".tga", ".icb", ".vda", ".vst"),
    "XBM": (".xbm",),
    "XPM": (".xpm",),
}
"""Formats that are read, as Pillow calls them, and the endings, in lower case, of files in them. Pillow also
opens what takes another program (EPS: Ghostscript; WMF: Windows), and what holds no pixels (BUFR, GRIB, HDF5,
IPTC, MPEG)."""

SUFFIXES = tuple(ending for endings in IMAGE_ENDINGS.values() for ending in endings)
"""File name endings, in lower case, that mark an image."""

TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".manifest", ".parquet")
"""Endings, in lower case, of what is read as a table."""

AUTO_ENCODING = "auto"
"""UTF-8, or what the byte-order mark of a file says."""

ARCHIVE_SUFFIXES = (".zip", ".tar")
"""Endings, in lower case, of archives that are read in place."""

PACKED_SUFFIXES = (".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")
"""Endings, in lower case, of archives that have to be unpacked first, which is said."""

SPREADSHEET_SUFFIXES = (".xlsx", ".xls", ".xlsm", ".ods")
"""Endings, in lower case, of spreadsheets that have to be saved as text first, which is said."""

FOREIGN_SUFFIXES: Mapping[str, str] = {
    ".tfrecord": "a file of records of TensorFlow",
    ".tfrecords": "a file of records of TensorFlow",
    ".npz": "a file of arrays of NumPy",
    ".npy": "an array of NumPy",
    ".h5": "an HDF5 file",
    ".hdf5": "an HDF5 file",
    ".mat": "a MATLAB file",
    ".pkl": "a file of Python objects",
    ".arrow": "a file of the library datasets",
    ".lst": "a list of MXNet",
    ".rec": "a file of records of MXNet",
    ".mdb": "an LMDB database",
    ".beton": "a file of FFCV",
    ".dcm": "a DICOM file",
    ".dicom": "a DICOM file",
    ".nii": "a volume of NIfTI",
}
"""Endings, in lower case, of files in which other programs keep images and labels, and what these are."""

SPLIT_NAMES: Mapping[str, Split] = {
    **dict.fromkeys(("train", "training", "train_set", "training_set", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "val_set", "validation_set"), "val"),
    **dict.fromkeys(("dev", "eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "testing", "test_set", "testing_set", "tst", "test1"), "test"),
}
"""What a folder or a cell of the split column may be called for each split, as `split_of` reads it."""


def split_of(name: str) -> Split | None:
    """Return the split that a folder or cell is named after; any case, `-` and blanks as `_`."""
    return SPLIT_NAMES.get(name.strip().casefold().replace("-", "_").replace(" ", "_"))
