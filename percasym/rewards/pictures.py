"""PNG bytes to pixel arrays and back: [H, W, 3], 0 is black and 1 is white."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.float64]


def read_pixels(picture: bytes) -> Pixels:
    """The pixels of a PNG, [H, W, 3]."""
    with Image.open(io.BytesIO(picture)) as image:
        return np.asarray(image.convert("RGB"), dtype=np.float64) / 255


def write_pixels(pixels: Pixels) -> bytes:
    """A PNG of pixels [H, W, 3]; values outside [0, 1] are clipped."""
    buffer = io.BytesIO()
    Image.fromarray(np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8)).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
