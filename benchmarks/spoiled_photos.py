"""Draw a data set with the faults that real ones have, to see what `finetune check` makes of it.

python benchmarks/spoiled_photos.py photos     # writes photos/ and photos.yaml
finetune check photos.yaml
"""

import shutil
import sys
from pathlib import Path

import numpy as np
from photos import draw_photo
from PIL import Image

CONFIG = """\
data: {{path: {path}, image_size: 64, batch_size: 16}}
model: {{arch: shufflenet_v2_x0_5, weights: "builtin:glyphs"}}
"""


def main() -> None:
    """Write the folder that is named, and a config for it."""
    root = Path(sys.argv[1])
    generator = np.random.default_rng(0)
    for split, each in (("train", 40), ("val", 10)):
        for name in ("ants", "bees"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(each):
                draw_photo(generator, 250, 188).save(folder / f"{number:03}.jpg", quality=90)
    ants, bees = root / "train" / "ants", root / "train" / "bees"
    jpeg = (ants / "000.jpg").read_bytes()
    (ants / "000.jpg").write_bytes(jpeg[: len(jpeg) * 2 // 3])
    (bees / "001.jpg").write_bytes(b"<html><title>404 Not Found</title></html>\n")
    (bees / "002.jpg").write_bytes(b"")
    shutil.copy(ants / "003.jpg", bees / "from_ants.jpg")
    shutil.copy(bees / "004.jpg", root / "val" / "bees" / "again.jpg")
    with Image.open(ants / "005.jpg") as image:
        image.resize((160, 120)).save(root / "val" / "ants" / "small.jpg", quality=60)
    with Image.open(bees / "006.jpg") as image:
        image.convert("CMYK").save(bees / "006.jpg")
    frames = [draw_photo(generator, 80, 60) for _ in range(3)]
    frames[0].save(bees / "007.gif", save_all=True, append_images=frames[1:])
    (bees / "notes.txt").write_text("from the garden\n")
    root.with_suffix(".yaml").write_text(CONFIG.format(path=root))


main()
