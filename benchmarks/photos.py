"""Draw pictures that are to a decoder and to a hash what photos are: shapes, shading, fine grain."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter


def draw_photo(generator: np.random.Generator, width: int = 500, height: int = 375) -> Image.Image:
    """Draw blurred and sharp shapes over a sky of noise whose amplitude falls with the frequency."""
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.maximum(np.hypot(rows, columns), 1 / width)
    channels = []
    shared = np.fft.rfft2(generator.standard_normal((height, width)))
    for _ in range(3):
        own = np.fft.rfft2(generator.standard_normal((height, width)))
        noise = np.fft.irfft2((shared + 0.3 * own) / frequency**1.1, (height, width))
        channels.append(noise / noise.std() * generator.uniform(25, 60) + generator.uniform(70, 180))
    image = Image.fromarray(np.stack(channels, axis=-1).clip(0, 255).astype(np.uint8))
    for blur in (6, 0):
        mask = Image.new("L", image.size)
        pen = ImageDraw.Draw(mask)
        for _ in range(3):
            x, y = generator.uniform(0, width), generator.uniform(0, height)
            a, b = generator.uniform(width / 25, width / 4), generator.uniform(height / 19, height / 4)
            pen.ellipse((x - a, y - b, x + a, y + b), fill=int(generator.integers(120, 230)))
        colour = tuple(int(value) for value in generator.integers(0, 256, 3))
        layer = Image.new("RGB", image.size, colour)
        image.paste(layer, mask=mask.filter(ImageFilter.GaussianBlur(blur)))
    return image
