"""PNG bytes to pixel arrays and back: [H, W, 3], 0 is black and 1 is white.

Pictures come from a task, or from a file of rollouts that somebody else recorded: a few kilobytes can ask for gigabytes, so the size in
the header is checked before anything is decoded.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.float64]
MAX_PIXELS = 2**26
"""Of a picture that a reward reads: what `task.max_decoded_pixels` allows by default."""


@contextmanager
def opened_picture(picture: bytes) -> Iterator[Image.Image]:
    """A PNG, not decoded yet. Raises ValueError for another format, or beyond MAX_PIXELS, and where it cannot be decoded in the block."""
    try:
        with Image.open(io.BytesIO(picture), formats=("PNG",)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"a picture has {image.width} x {image.height} pixels, and rewards read at most {MAX_PIXELS:,}.")
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, OSError, SyntaxError, EOFError) as error:
        raise ValueError(f"a picture of {len(picture):,} bytes is no whole PNG ({' '.join(str(error).split())[:100]}).") from error


def read_pixels(picture: bytes) -> Pixels:
    """The pixels of a PNG, [H, W, 3]."""
    with opened_picture(picture) as image:
        return np.asarray(image.convert("RGB"), dtype=np.float64) / 255


def write_pixels(pixels: Pixels) -> bytes:
    """A PNG of pixels [H, W, 3]; values outside [0, 1] are clipped."""
    buffer = io.BytesIO()
    Image.fromarray(np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8)).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
