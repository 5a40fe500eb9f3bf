"""Photographs' stand-ins, and Pillow's time for what `prepare` does to them.

    pillow.py make DIR COUNT     JPEGs of 500 x 375 pixels and about 62 KB in DIR/train/{a,b}
    pillow.py time DIR           images a second of one thread's processor time: decode, resize the
                                 shorter side to 256 (triangle filter, antialiased), centre crop

The pictures are noise whose amplitude falls with frequency nearly as in photographs, its colours
correlated, at quality 90: the work of a decoder depends on the coefficients that are not zero, and so
on the size of the file.
"""
import pathlib
import sys
import time

import numpy as np
from PIL import Image

WIDTH, HEIGHT, QUALITY = 500, 375, 90


def picture(number):
    random = np.random.default_rng(number)
    frequency = np.hypot(np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)[None])
    frequency[0, 0] = 1
    # The exponent that gives 62 KB.
    frequency **= 1.4
    waves = random.normal(size=(3, *frequency.shape)) + 1j * random.normal(size=(3, *frequency.shape))
    planes = np.fft.irfft2(waves / frequency, s=(HEIGHT, WIDTH))
    planes /= planes.std(axis=(1, 2), keepdims=True)
    # Brightness varies most, as in photographs; red above blue.
    light, warm, green = planes
    rgb = np.stack([light + 0.25 * warm, light + 0.12 * green, light - 0.25 * warm], axis=-1)
    pixels = np.clip(rgb * 50 + [124, 117, 104], 0, 255).astype(np.uint8)
    return Image.fromarray(pixels)


def make(folder, count):
    for number in range(count):
        path = folder / "train" / "ab"[number % 2] / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(path, quality=QUALITY)
    sizes = [p.stat().st_size for p in folder.rglob("*.jpg")]
    print(f"{len(sizes)} images of {sum(sizes) / len(sizes) / 1000:.1f} KB on average")


def prepared(path):
    image = Image.open(path).convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize([round(n * scale) for n in image.size], Image.Resampling.BILINEAR)
    left, top = ((n - 256) // 2 for n in image.size)
    return np.asarray(image.crop((left, top, left + 256, top + 256)))


def timed(folder):
    paths = sorted(folder.rglob("*.jpg"))
    start = time.process_time()
    for path in paths:
        prepared(path)
    seconds = time.process_time() - start
    print(f"Pillow {Image.__version__}: {len(paths) / seconds:.0f} images/s of one thread")


if __name__ == "__main__":
    command, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    if command == "make":
        make(folder, int(sys.argv[3]))
    else:
        timed(folder)
