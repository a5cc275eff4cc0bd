"""Pictures that someone else made: found, measured before they are decoded, and decoded once to be sure.

A small file can ask for gigabytes when it is decoded; its header says so first, and such a file is refused.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
"""Encodings that are read; every other decoder of PIL stays out of the way of a stranger's bytes."""

Source = Path | bytes
"""A picture's file, or its encoded bytes."""


def source_of(value: object, folder: Path) -> Source:
    """What a row's `image` points at: a path relative to `folder`, base64 (a data URI or bare), encoded bytes, or {bytes, path} of both.

    A text without a dot is base64, whose alphabet has none; any other is a path.

    >>> source_of("images/7.png", Path("data")).as_posix(), source_of("aGk=", Path("data"))
    ('data/images/7.png', b'hi')

    Raises ValueError for anything else.
    """
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes) and value:
        return value
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"its image must be a path or base64, got {value!r:.80}.")
    if not value.startswith("data:") and "." in value:
        return folder / Path(value).expanduser()
    try:
        return base64.b64decode(value.partition(",")[2] if value.startswith("data:") else value, validate=True)
    except binascii.Error as error:
        raise ValueError(f"its image is neither a path (no dot in it) nor base64 ({error}): {value[:40]!r}.") from None


def read_picture(source: Source, *, max_pixels: int, max_bytes: int) -> bytes:
    """The picture as PNG bytes: the file's own where it is one, else encoded anew in RGB.

    Raises ValueError for what is missing, larger than the limits, or no whole picture.
    """
    try:
        if isinstance(source, Path) and source.stat().st_size > max_bytes:
            raise ValueError(f"its image {source} has {source.stat().st_size:,} bytes, and task.max_bytes={max_bytes}.")
        data = source.read_bytes() if isinstance(source, Path) else source
    except OSError as error:
        raise ValueError(f"its image {source!s} cannot be read ({error.strerror}).") from None
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise TooManyPixelsError(f"its image has {width} x {height} pixels, and task.max_pixels={max_pixels}.")
            image.load()
            if image.format == "PNG":
                return data
            out = io.BytesIO()
            image.convert("RGB").save(out, "PNG")
            return out.getvalue()
    except TooManyPixelsError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # PIL's own limit, met while it reads the header.
        raise TooManyPixelsError(f"its image has more pixels than PIL decodes, and task.max_pixels={max_pixels}.") from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:  # What PIL's decoders raise for broken files.
        shown = source if isinstance(source, Path) else f"of {len(data):,} bytes"
        raise ValueError(f"its image {shown} is no whole picture of {', '.join(FORMATS)} ({error}).") from None


class TooManyPixelsError(ValueError):
    """A picture larger than the limit."""
