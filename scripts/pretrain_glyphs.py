"""Train the weights that ship as `builtin:glyphs`: a small CNN that has read letters, and never a digit.

    python scripts/pretrain_glyphs.py            # six minutes on two idle cores

Every picture is drawn here, from the text fonts that matplotlib ships: a letter becomes a signed
distance field, is bent, sheared, thinned or thickened like handwriting, scaled to its bounding box, and
counted down to 8 × 8 greys from a bitmap of 32 × 32, which is how the handwritten digits of scikit-learn
were made. The network then sees it as `finetune` will show it a digit: resized to 64 × 64 and
normalised. All draws follow from the seed, so the same versions and number of threads give the same
file.
"""

import argparse
import json
import string
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import PIL
import torch
import torch.nn.functional as F  # noqa: N812
import torchvision
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import save_file
from scipy import ndimage
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as transforms

from finetune.seed import derive

ARCH = "shufflenet_v2_x0_5"
IMAGE_SIZE = 64
CANVAS = 64  # side of the field in which a letter is bent; its ink is CANVAS / 2 high at first
BITMAP = 32  # side of the black-and-white picture that is counted
BLOCK = 4  # 4 × 4 of its pixels make one grey value, 0 … 16

TRAINING_FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    *("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic"),
    *("cmb10", "cmmi10", "cmr10", "cmti10", "cmtt10"),
)
HELD_OUT_FONTS = ("STIXGeneralBolIta", "cmss10")

# Once scaled to one height, these lower-case letters are their capitals.
LOOKALIKES = dict(zip("ckopsuvwxzl", "CKOPSUVWXZI", strict=True))
CLASSES = tuple(letter for letter in string.ascii_letters if letter not in LOOKALIKES)
assert not set(CLASSES) & set(string.digits), "the digits are what the weights are to be transferred to"


@dataclass(frozen=True)
class Glyphs:
    """Every letter in every font, to draw training pictures from."""

    fields: Tensor  # (G, 1, CANVAS, CANVAS) signed distance to the outline in pixels, positive in the ink
    half_widths: Tensor  # (G,) typical half stroke width in pixels
    targets: Tensor  # (G,) index into CLASSES


def load_glyphs(font_names: tuple[str, ...]) -> Glyphs:
    """Draw all 52 letters in the fonts named."""
    fields, half_widths, targets = [], [], []
    for name in font_names:
        for letter in string.ascii_letters:
            field = distance_field(name, letter)
            fields.append(torch.from_numpy(field)[None])
            half_widths.append(
                2 * float(field[field > 0].mean())
            )  # across a stroke the mean is half the peak
            targets.append(CLASSES.index(LOOKALIKES.get(letter, letter)))
    return Glyphs(torch.stack(fields), torch.tensor(half_widths), torch.tensor(targets))


def distance_field(font_name: str, letter: str) -> np.ndarray:
    """Draw one letter, centred and half as high as the canvas, as signed distances (CANVAS, CANVAS)."""
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{font_name}.ttf")
    font = ImageFont.truetype(str(path), 200)
    page = Image.new("L", (480, 480))
    ImageDraw.Draw(page).text((120, 100), letter, fill=255, font=font)
    ink = page.crop(page.getbbox())
    oversampling = 4
    side, height = CANVAS * oversampling, CANVAS * oversampling // 2
    ink = ink.resize((max(1, round(ink.width * height / ink.height)), height))
    page = Image.new("L", (side, side))
    page.paste(ink, ((side - ink.width) // 2, (side - ink.height) // 2))
    solid = np.asarray(page) > 127
    distance = ndimage.distance_transform_edt(solid) - ndimage.distance_transform_edt(~solid)
    blocks = distance.reshape(CANVAS, oversampling, CANVAS, oversampling)
    field: np.ndarray = (blocks.mean((1, 3)) / oversampling).astype(np.float32)
    return field


def draw_letters(glyphs: Glyphs, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw n distorted letters: images uint8 (n, 8, 8) and targets (n,), a function of the seed alone."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(glyphs.targets), (n,), generator=generator)
    ink = bend(glyphs.fields[chosen], glyphs.half_widths[chosen], generator)
    return count_blocks(fit_to_box(ink, generator)), glyphs.targets[chosen]


def uniform(low: float, high: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw numbers between low and high."""
    return torch.rand(shape, generator=generator) * (high - low) + low


def bend(fields: Tensor, half_widths: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate, shear, warp and restroke letters; give soft ink (N, 1, CANVAS, CANVAS), 0–1."""
    n = len(fields)
    angle = uniform(-0.3, 0.3, (n,), generator)
    shear = uniform(-0.35, 0.35, (n,), generator)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros(n)
    rows = [torch.stack([cos, cos * shear - sin, zero], 1), torch.stack([sin, sin * shear + cos, zero], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), [n, 1, CANVAS, CANVAS], align_corners=False)
    grid = grid + smooth_noise(n, 2, 5, 0.14, generator).permute(0, 2, 3, 1)
    field = F.grid_sample(fields, grid, padding_mode="border", align_corners=False)
    # The stroke that is wanted, never so thin that a letter vanishes, and uneven along its way.
    wanted = uniform(1.7, 4.0, (n,), generator)
    level = (half_widths - wanted).minimum(0.5 * half_widths).view(n, 1, 1, 1)
    level = level + smooth_noise(n, 1, 6, 0.6, generator)
    return (field - level).add(0.5).clamp(0, 1)


def smooth_noise(n: int, channels: int, knots: int, strength: float, generator: torch.Generator) -> Tensor:
    """Draw smooth random surfaces (n, channels, CANVAS, CANVAS), each of a strength up to `strength`."""
    coarse = torch.randn(n, channels, knots, knots, generator=generator)
    coarse = coarse * uniform(0, strength, (n, 1, 1, 1), generator)
    return F.interpolate(coarse, size=(CANVAS, CANVAS), mode="bicubic", align_corners=False)


def fit_to_box(ink: Tensor, generator: torch.Generator) -> Tensor:
    """Scale letters to the full height of a bitmap (N, 1, BITMAP, BITMAP), as the digits were."""
    n = len(ink)
    top, bottom = extent(ink.amax((1, 3)) > 0.5)
    left, right = extent(ink.amax((1, 2)) > 0.5)
    height, width = bottom - top, right - left
    shown_height = uniform(0.92, 1.06, (n,), generator)  # share of the bitmap
    aspect = width / height * uniform(0.75, 1.2, (n,), generator)
    shown_width = shown_height * aspect.minimum(uniform(0.55, 0.95, (n,), generator))
    x_scale, y_scale = width / shown_width / 2, height / shown_height / 2  # the whole bitmap is 2 wide
    x_shift = (left + right) / 2 + uniform(-0.06, 0.06, (n,), generator) * x_scale * 2
    y_shift = (top + bottom) / 2 + uniform(-0.03, 0.03, (n,), generator) * y_scale * 2
    zero = torch.zeros(n)
    rows = [torch.stack([x_scale, zero, x_shift], 1), torch.stack([zero, y_scale, y_shift], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), [n, 1, BITMAP, BITMAP], align_corners=False)
    return F.grid_sample(ink, grid, align_corners=False)


def extent(used: Tensor) -> tuple[Tensor, Tensor]:
    """Find where the used rows or columns (N, CANVAS) begin and end, in affine_grid's units of −1 … 1."""
    first = used.int().argmax(1)
    last = CANVAS - used.flip(1).int().argmax(1)
    return first * (2 / CANVAS) - 1, last * (2 / CANVAS) - 1


def count_blocks(bitmaps: Tensor) -> Tensor:
    """Count the black-and-white pixels of every block and give greys uint8 (N, 8, 8)."""
    counts = F.avg_pool2d((bitmaps > 0.5).float(), BLOCK) * BLOCK**2
    return (counts * (255 / BLOCK**2)).round().to(torch.uint8).squeeze(1)


def prepare(images: Tensor, mean: float, std: float) -> Tensor:
    """Resize and normalise uint8 (N, 8, 8) as `finetune` does: float32 (N, 3, IMAGE_SIZE, IMAGE_SIZE)."""
    large = transforms.resize(images[:, None], [IMAGE_SIZE, IMAGE_SIZE], antialias=True)
    normal = (large.float() / 255 - mean) / std
    return normal.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def grey_statistics(glyphs: Glyphs, seed: int) -> tuple[float, float]:
    """Measure mean and standard deviation of letters as the network sees them, to three places."""
    large = prepare(draw_letters(glyphs, 4096, derive(seed, "statistics"))[0], 0.0, 1.0)
    return round(float(large.mean()), 3), round(float(large.std()), 3)


def train(model: nn.Module, draw: Callable[[int], tuple[Tensor, Tensor]], *, steps: int, lr: float) -> None:
    """Train with AdamW and one cycle; step k learns from `draw(k)`."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.15)
    model.train()
    started, seen, right = time.monotonic(), 0, 0
    for step in range(1, steps + 1):
        images, targets = draw(step)
        logits = model(images)
        optimizer.zero_grad()
        F.cross_entropy(logits, targets, label_smoothing=0.1).backward()
        optimizer.step()
        schedule.step()
        seen, right = seen + len(targets), right + int((logits.argmax(1) == targets).sum())
        if step % 100 == 0 or step == steps:
            seconds = time.monotonic() - started
            print(f"step {step:5d}/{steps}  accuracy {right / seen:.3f}  {seconds:4.0f} s", flush=True)
            seen = right = 0


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, targets: Tensor) -> float:
    """Measure how many of the prepared letters are recognised, 0–1."""
    model.eval()
    logits = torch.cat([model(batch) for batch in images.split(256)])
    return float((logits.argmax(1) == targets).float().mean())


def save(
    model: nn.Module, args: argparse.Namespace, *, mean: float, std: float, figures: dict[str, float]
) -> None:
    """Write the weights, float32, with what they are and how they were made in the file's metadata."""
    preprocessing = {
        "image_size": IMAGE_SIZE,
        "resize_size": IMAGE_SIZE,
        "mean": [mean] * 3,
        "std": [std] * 3,
        "interpolation": "bilinear",
    }
    recipe = {
        "command": "python scripts/pretrain_glyphs.py",
        "steps": args.steps,
        "batch_size": args.batch_size,
        "lr": args.lr,
        "seed": args.seed,
        "threads": args.threads,
        "accuracy": figures,
        "fonts": TRAINING_FONTS,
        "held_out_fonts": HELD_OUT_FONTS,
        "versions": {
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "matplotlib": matplotlib.__version__,
            "pillow": PIL.__version__,
        },
    }
    metadata = {
        "arch": ARCH,
        "classes": json.dumps(CLASSES),
        "preprocessing": json.dumps(preprocessing),
        "recipe": json.dumps(recipe),
        "licence": "Apache-2.0. Trained on renderings of fonts that ship with matplotlib (DejaVu, STIX, "
        "Computer Modern), each free to use and to redistribute; no font data is in the file.",
    }
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, args.out, metadata=metadata)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.2f} MB")


def main() -> None:
    """Train, measure and write the weights with their description."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path(__file__).parents[1] / "finetune" / "data" / "builtin" / "glyphs.safetensors"
    parser.add_argument("--out", type=Path, default=default)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(True)
    started = time.monotonic()
    glyphs, unseen_glyphs = load_glyphs(TRAINING_FONTS), load_glyphs(HELD_OUT_FONTS)
    mean, std = grey_statistics(glyphs, args.seed)
    print(f"{len(glyphs.targets)} glyphs, {len(CLASSES)} classes, mean {mean}, std {std}")

    def draw(step: int) -> tuple[Tensor, Tensor]:
        images, targets = draw_letters(glyphs, args.batch_size, derive(args.seed, "letters", step))
        return prepare(images, mean, std), targets

    torch.manual_seed(derive(args.seed, "init"))
    model = torchvision.models.get_model(ARCH, weights=None, num_classes=len(CLASSES))
    model = model.to(memory_format=torch.channels_last)
    train(model, draw, steps=args.steps, lr=args.lr)

    figures = {}
    for what, source in (("fresh letters", glyphs), ("letters of unseen fonts", unseen_glyphs)):
        images, targets = draw_letters(source, 4096, derive(args.seed, "held out"))
        figures[what] = round(accuracy(model, prepare(images, mean, std), targets), 4)
        print(f"accuracy on {what}: {figures[what]:.2%}")
    print(f"{time.monotonic() - started:.0f} s")
    save(model, args, mean=mean, std=std, figures=figures)


if __name__ == "__main__":
    main()
