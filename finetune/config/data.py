"""The config's section on the images."""

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from finetune.choices import (
    ON_DEVICE,
    Augment,
    AugmentOn,
    Balance,
    Cache,
    CaseVariants,
    OnBad,
    SixteenBit,
    Uncertain,
)
from finetune.config.columns import Encoding, LabelColumns, MetadataColumns, Separator
from finetune.config.folder_values import FoldersOfLayout, LabelPattern
from finetune.config.sections import Section
from finetune.config.values import Colour, Count, ImageSize, Text, Validation, Workers

_LEAST_ALPHA = 0.01  # below, shares are 0 or 1 in all but a few draws, and then not even random


class ColumnsConfig(Section):
    """The columns of a table, where `data.path` is one.

    `null` takes the column that has one of the usual names, in upper or lower case, or is found by what its
    cells hold: docs/data.md. Columns of a table without column names are called `column 1`, `column 2`, …
    """

    image: Text | None = None
    """Paths of the images. Usual names: `image`, `img`, `image_path`, `file`, `filename`, `file_name`,
    `filepath`, `file_path`, `path`; else the column whose cells name files."""

    label: LabelColumns | None = None
    """The classes. Usual names: `label`, `class`, `class_name`, `target`, `category`; else the one column
    with few different texts, or columns of 0 and 1, of which each row has one 1, or else several. A list
    of columns, such as `[cat, dog, bird]`, is one for each class: their cells are 1 where an image has it and
    0 where not, and an image may have several or none; see docs/several-labels.md."""

    split: Text | None = None
    """What each image is for: `train`, `val` (`valid`, `validation`) or `test`. Usual names: `split`,
    `subset`. The column may be missing."""

    group: Text | None = None
    """What images have in common, such as a patient, a video or a product: images of one group never stand
    on both sides of the split. Usual names: `group`, `group_id`. The column may be missing."""

    metadata: MetadataColumns = {}  # noqa: RUF012  (pydantic copies it)
    """Columns with metadata that the model sees beside the image: `[site, age]`. Each is a `category`, which
    enters the head through an embedding, or a `number`; `auto` reads one as numbers if all cells are, and
    some have decimals or there are more than 20 distinct values. `{site: category, age: number}` says
    which. Their cells may be empty. See docs/metadata.md."""


class DataConfig(Section):
    """The images: where they lie, how they are split, read and augmented."""

    path: Text
    """Folder with one sub-folder of images per class, or with `train/` and `val/` that hold such
    folders; a `.zip` or uncompressed `.tar` archive of one; a table of images and labels that ends in `.csv`,
    `.tsv`, `.txt`, `.json`, `.jsonl` or `.parquet`; or `builtin:digits`, a small data set that comes with the
    package, or `builtin:turned-digits`, a table of them with a column `site`. Relative to the current
    directory. See docs/data.md."""

    columns: ColumnsConfig = ColumnsConfig()
    """The columns of a table, where `data.path` is one."""

    layout: FoldersOfLayout = "auto"
    """What the folders directly in `data.path` are, where that can be read in two ways: `classes`; `groups`,
    such as sites, that hold class folders, and stay each on one side of the split; `classes/groups`, classes
    that hold such groups, for instance a folder for each patient; `innermost` where those that hold the
    images are classes, called by their paths, such as `birds/owl`; or the folder of each split,
    `{train: a, val: b}` with or without `test`. `auto` takes them for splits by their names, else for
    classes, without masks that lie beside the images, and asks where another reading makes sense."""

    label_pattern: LabelPattern | None = None
    r"""A regular expression with one group, such as `'^(.+)_\d+'`: what the group matches in the name of a
    file is the class of the image, wherever below `data.path` (or the folders of its splits) it lies. `null`
    takes the class from the folder. It is searched for in the name without folders, and stopped if it takes
    seconds."""

    label_separator: Separator | None = "auto"
    """What stands between the names of classes in a cell of a table's label column, such as `";"`: an image
    may then have several classes, or none; see docs/several-labels.md. `null` reads a cell as one class, and
    so does `auto`, but it asks where cells look as if they were put together from others."""

    uncertain: Uncertain = "stop"
    """What blanks and −1 mean in columns of 0 and 1, one for each class, as of findings in medical reports:
    `absent` reads both as 0, `present` reads −1 as 1 and blanks as 0. `stop` asks. Columns that hold nothing
    but 1 and blanks, or 1 and −1, need no answer: there both mean that the image has not the class."""

    encoding: Encoding = "auto"
    """What the text of a table is written in: `auto` is UTF-8, or UTF-16 where the file begins with a
    byte-order mark. Others have to be named, such as `cp1252` (Windows, Western Europe), `cp1251`,
    `shift_jis` or `gb18030`: any name that Python knows."""

    image_folder: Text | None = None
    """Folder that the paths in a table are relative to. `null` is the table's own."""

    corrections: Text | None = None
    """A table with the columns `image` and `decision`, such as the one that `finetune labels --csv` writes:
    `keep` (or nothing) changes nothing, `drop` leaves the image out, and the name of a class is its class
    from now on. No image or table is changed. Relative to the current directory; see docs/labels.md."""

    exclude: Text | None = None
    """A table of images to leave out, with a column `image`; where it has a column `decision` as well, such
    as the one that `finetune check --csv` writes, those of the rows that say `drop`. No file is changed.
    Relative to the current directory; see docs/check.md."""

    val: Validation = "auto"
    """What to validate on: a fraction of each class (0–1); `{fold: 2, of: 5}`, one part of a
    cross-validation; the name of the folder that holds the validation images; or a table with the columns
    `image` and `split`, such as the split.csv of an earlier run, to split as it says. `auto` takes the
    folder `val` (also `valid`, `validation`, `dev` or `eval`, in any case) or the `val` rows of a table's
    split column if there are any, else a fraction of 0.2. No image may be in two splits."""

    split_seed: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = None
    """Decides which images a fraction of `val` holds out, and which `images_per_class` takes. `null` takes
    `seed`; a number keeps the images the same where the seed of the training changes."""

    images_per_class: Count | None = None
    """Train on only that many images of each class, to see how far few labels go. `null` takes all of
    them. The validation images stay the same."""

    balance: Balance = "none"
    """What to do about classes of very different size: `sampler` shows the images of rare classes more often
    in an epoch, which stays as long as it is, and others less often; `loss` lets them count for more.
    `none` lets every image count the same. Weights go by the effective number of images of a class (Cui et
    al., 2019); see docs/uneven-classes.md."""

    balance_beta: Annotated[float, Field(ge=0, le=0.999999)] = 0.999
    """β of the effective number (1 − βⁿ) / (1 − β) of n images: towards 1 classes weigh by the inverse of
    their size, towards 0 all images weigh the same."""

    image_size: ImageSize | None = None
    """Side of the square image that the network sees, in pixels. `null` takes the size that the
    pretrained weights were made for."""

    batch_size: Annotated[int, Field(ge=2, le=65536)] = 64
    """Images that are gone through at once, and without `accumulate` those of a training step. At least 2,
    because batch normalisation needs more than one image."""

    accumulate: Annotated[int, Field(ge=1, le=65536)] = 1
    """Batches of a training step: their gradients are added up, so that a step has `batch_size` ×
    `accumulate` images and takes the memory of `batch_size`. Batch normalisation that moves, as that of the
    head, sees one batch at a time."""

    augment: Augment = "standard"
    """How much training images are varied: `none`, `light` (small shifts), `standard` (crops, flips,
    light and colour) or `strong` (for long training on few images). `randaugment` and `trivial` are
    torchvision's policies after the crops and flips of `standard`. Use `light` where mirrored images mean
    something else, as for digits and text."""

    augment_on: AugmentOn = "cpu"
    """Where training images are varied: on the `cpu` by what loads them, or a batch at a time on the `device`
    on which the model computes, with `augment: none`, `light` or `standard`. Draws are the same, and grey
    levels differ by 1 at the most. For a GPU that waits for its images; slower on a CPU. See docs/gpu.md."""

    mixup: Annotated[float, Field(ge=0, le=10)] | None = None
    """α of mixup (Zhang et al., 2018): each training image is mixed with another one of its batch, and their
    targets with them, by shares drawn from Beta(α, α). 0.2 is usual, and leaves most images nearly as they
    are; with 1 all shares are equally likely. `null` or 0 mixes none. Not with `loss.name: focal`, nor with
    metadata. See docs/recipe.md."""

    cutmix: Annotated[float, Field(ge=0, le=10)] | None = None
    """α of CutMix (Yun et al., 2019): a rectangle of each training image is replaced by that of another one
    of its batch, and the targets are mixed by area, with shares drawn from Beta(α, α). 1 is usual. `null` or
    0 replaces none. With `mixup` as well, each batch gets one of the two, at random."""

    workers: Workers = "auto"
    """Processes that read and augment images; 0 does it in the training process. The result does not
    depend on it. `auto` chooses by the number of cores and of images."""

    cache: Cache = "auto"
    """Where images are kept that are decoded once, instead of in each pass over them: on `disk`, in the cache
    folder of the user's system, where later runs find them; in `memory`, for this run; or nowhere, `off`. The
    result does not depend on it. `auto` takes the disk where training goes through the images at least three
    times, and they fill no more than a quarter of the memory and of the free disk. See docs/cache.md."""

    on_bad_image: OnBad = "stop"
    """What to do about images that cannot be read: `stop` before training with a list of them, or
    `skip` them."""

    max_bad_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01
    """With `on_bad_image: skip`: stop after all if more than this fraction (0–1) of the images is
    bad."""

    max_pixels: Count = 50_000_000
    """An image with more pixels than this counts as bad, or one with transparency (or other pixels of four
    bytes) that takes more memory than so many of three; read from its header, before decoding."""

    sixteen_bit: SixteenBit = "scale"
    """16-bit images: `scale` them to 8 bits by the range of their type, or `stop`."""

    background: Colour = "#ffffff"
    """Colour laid under transparent images, as `"#rrggbb"` in quotes."""

    case_variants: CaseVariants = "stop"
    """Class folders that differ only in upper and lower case, such as `Ants` and `ants`: `stop`, or
    `allow` them as two classes."""

    @property
    def mixes(self) -> bool:
        """Whether training images are mixed with others."""
        return bool(self.mixup or self.cutmix)

    @property
    def images_per_step(self) -> int:
        """Images of which the optimizer takes one step."""
        return self.batch_size * self.accumulate

    @field_validator("label_separator")
    @classmethod
    def _one_way_to_have_several(cls, separator: str | None, info: ValidationInfo) -> str | None:
        columns = info.data.get("columns")
        named = separator not in (None, "auto")
        if named and columns is not None and isinstance(columns.label, tuple):
            raise ValueError("data.columns.label is a list, whose cells hold no names; leave one of them out")
        return separator

    @field_validator("augment_on")
    @classmethod
    def _device_knows_the_level(cls, where: AugmentOn, info: ValidationInfo) -> AugmentOn:
        level = info.data.get("augment")
        if where == "device" and level is not None and level not in ON_DEVICE:
            raise ValueError(
                f"the device does not do augment: {level} to the same grey levels; "
                f"write cpu, or one of {', '.join(ON_DEVICE)} for augment"
            )
        return where

    @field_validator("mixup", "cutmix")
    @classmethod
    def _mixed_images_have_no_metadata(cls, alpha: float | None, info: ValidationInfo) -> float | None:
        if not alpha:
            return alpha
        if alpha < _LEAST_ALPHA:
            raise ValueError(f"expected 0 for none, or a number of at least {_LEAST_ALPHA:g}")
        columns = info.data.get("columns")
        if columns is not None and columns.metadata:
            names = ", ".join(columns.metadata)
            raise ValueError(
                f"mixes two images into one, of which data.columns.metadata ({names}) says nothing; "
                "leave one of them out"
            )
        return alpha
