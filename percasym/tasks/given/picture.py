"""Pictures of collected rows: the usual ways to name one, and its pixels as a person sees them.

Orientation, transparency, palettes, CMYK, 16 bits and animation are resolved by Pillow before anything else reads the pixels, so a
phone picture is upright and a transparent one stands on white, as in any viewer. The header is checked before pixels are decoded: a
small file can expand to gigabytes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import math
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from PIL import Image, ImageOps

from percasym.config.files import UnfitFileError, read_bytes

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
"""Accepted encodings. PIL's other decoders are never run on untrusted bytes."""

MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF", b"BM", b"GIF8")
"""The first bytes of these encodings, by which base64 is distinguished from a path."""

AS_IT_IS = ("1", "L", "P", "RGB")
"""Modes of a PNG that need no conversion: every decoder shows them alike once transparency is ruled out."""

LONGEST_NAME = 4096
"""Characters of a path on Linux; longer text can only be base64."""

LONGEST_SHOWN = 300
"""Characters of a path in a sentence."""

BASE64 = re.compile(r"[A-Za-z0-9+/\s]+=*\s*")
DRIVE = re.compile(r"[A-Za-z]:[\\/]")
ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")

Source = Path | bytes
"""An image file, or its encoded bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a picture may measure (`task.max_*`)."""

    max_bytes: int
    """Of the encoded file."""
    max_pixels: int
    """A larger picture is resized to this area."""
    max_decoded_pixels: int
    """A larger picture is refused before it is decoded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the check before training keeps of a picture."""

    digest: str
    """Of its pixels and size: the same picture in another file or encoding has the same."""
    size: tuple[int, int]
    """(width, height) in pixels, upright and resized."""
    resized: bool


class TooManyPixelsError(ValueError):
    """An image larger than the limit."""


def image_source(value: object, folder: Path) -> Source:
    """Resolve an `image` column: a path relative to `folder`, a file:// URI, base64 (bare or a data URI, with line breaks), encoded
    bytes, a {bytes, path} mapping, or a list of one of these.

    >>> image_source("images/7.png", Path("data")).as_posix(), image_source(["images\\\\7.png"], Path("data")).as_posix()
    ('data/images/7.png', 'data/images/7.png')
    >>> image_source("iVBORw0K\\nGgo=\\n", Path("data"))
    b'\\x89PNG\\r\\n\\x1a\\n'

    Raises ValueError for anything else, web addresses included.
    """
    if isinstance(value, list | tuple):
        if len(value) != 1:
            raise ValueError(f"it has {len(value)} pictures, and one picture is trained for each row.")
        value = value[0]
    if isinstance(value, Mapping):
        if isinstance(encoded := value.get("bytes"), str):  # JSON holds no bytes.
            return _from_base64(encoded)
        value = encoded or value.get("path") or value.get("url")
    if isinstance(value, bytes) and value:
        return value
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"its image must be a path or base64, got {value!r:.80}.")
    if value.startswith("data:"):
        return _from_base64(value.partition(",")[2])
    if (address := ADDRESS.match(value)) is not None:
        return _from_address(address[1].lower(), value, folder)
    if BASE64.fullmatch(value) and (data := _picture_bytes(value)) is not None:
        return data
    if len(value) > LONGEST_NAME:
        raise ValueError(f"its image is neither a path nor base64 of a picture: {value[:40]!r}...")
    return _path(value, folder)


def is_encoded(value: object) -> bool:
    """Whether an `image` column holds the picture itself as base64, of which only the beginning is read.

    >>> is_encoded("iVBORw0KGgo" + 1000 * "A"), is_encoded({"bytes": "iVBORw0K"}), is_encoded("images/7.png")
    (True, True, False)
    """
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, Mapping):
        if isinstance(value.get("bytes"), str):
            return True
        value = value.get("bytes") or value.get("path") or value.get("url")
    if not isinstance(value, str):
        return False
    return value.startswith("data:") or _begins_as_a_picture(value)


def look(source: Source, limits: Limits) -> Look:
    """Decode a picture completely and describe it.

    Raises ValueError when it is missing, exceeds a limit, or cannot be decoded completely.
    """
    _, seen, resized = _decoded(source, limits)
    pixels = seen.convert("RGB")
    digest = hashlib.blake2b(b"%d x %d:" % pixels.size, digest_size=16)
    digest.update(pixels.tobytes())
    return Look(digest=digest.hexdigest(), size=pixels.size, resized=resized)


def read_image(source: Source, limits: Limits) -> bytes:
    """A picture as PNG bytes. Raises ValueError as `look` does."""
    return read_sized_image(source, limits)[0]


def read_sized_image(source: Source, limits: Limits) -> tuple[bytes, tuple[int, int]]:
    """A picture as PNG bytes (a PNG that every decoder shows alike unchanged, any other picture encoded again in RGB), and its (width,
    height) in pixels.

    Raises ValueError as `look` does.
    """
    data, seen, _ = _decoded(source, limits)
    if data is not None:
        return data, seen.size
    out = io.BytesIO()
    seen.convert("RGB").save(out, "PNG", compress_level=1)  # For memory, not for disk: four times as fast as the default.
    return out.getvalue(), seen.size


def _decoded(source: Source, limits: Limits) -> tuple[bytes | None, Image.Image, bool]:
    """The encoded bytes if they need no conversion, the pixels as a person sees them, and whether they were resized."""
    data = _bytes_of(source, limits.max_bytes)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > limits.max_decoded_pixels:
                raise TooManyPixelsError(
                    f"its image has {width} x {height} pixels, and task.max_decoded_pixels={limits.max_decoded_pixels}."
                )
            image.load()
            seen = _as_seen(image)
            plain = image.format == "PNG" and seen is image and getattr(image, "n_frames", 1) == 1
            shown, resized = _within(seen, limits.max_pixels)
            return (data if plain and not resized else None), shown.copy() if shown is image else shown, resized
    except TooManyPixelsError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # PIL's own limit, raised while it reads the header.
        raise TooManyPixelsError(
            f"its image has more pixels than PIL decodes, and task.max_decoded_pixels={limits.max_decoded_pixels}."
        ) from None
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError) as error:  # What PIL's decoders raise for broken files.
        shown_as = _shown(source) if isinstance(source, Path) else f"of {len(data):,} bytes"
        reason = re.sub(r" ?<[^>]* object at 0x[0-9a-f]+>", "", str(error))  # An address would differ from run to run.
        raise ValueError(f"its image {shown_as} is no whole picture of {', '.join(FORMATS)} ({reason}).") from None


def _bytes_of(source: Source, max_bytes: int) -> bytes:
    """The encoded bytes of a picture."""
    if isinstance(source, bytes):
        return source
    try:
        return read_bytes(source, max_bytes=max_bytes)
    except FileNotFoundError:
        known = "" if "." in source.name else " If it is base64, it is not that of a picture."
        raise ValueError(f"its image {_shown(source)} cannot be read (No such file or directory).{known}") from None
    except OSError as error:
        raise ValueError(f"its image {_shown(source)} cannot be read ({error.strerror}).") from None
    except UnfitFileError as error:
        reason = str(error).replace(str(source), _shown(source))
        raise ValueError(f"its image is unfit: {reason} task.max_bytes={max_bytes}.") from None


def _shown(path: Path) -> str:
    """A path for a sentence: base64 that is none of a picture is taken for one of thousands of characters."""
    text = str(path)
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN // 2]}...{text[-LONGEST_SHOWN // 2 :]}"


def _as_seen(image: Image.Image) -> Image.Image:
    """The first frame, upright, 8 bits, opaque; `image` itself where nothing has to be done."""
    seen = _upright(image)
    if seen.mode.startswith(("I", "F")):
        seen = _eight_bits(seen)
    elif seen.has_transparency_data:
        coloured = seen.convert("RGBA")
        seen = Image.new("RGBA", coloured.size, "white")
        seen.alpha_composite(coloured)
    return seen if seen.mode in AS_IT_IS else seen.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF orientation says; damaged EXIF data turn nothing, as in a viewer."""
    try:
        turned = image.getexif().get(0x0112, 1) != 1 or "xmp" in image.info
        return ImageOps.exif_transpose(image) if turned else image
    except (OSError, ValueError, SyntaxError, EOFError, KeyError, TypeError, AttributeError, struct.error):
        return image


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey values divided by 257; the transparent value becomes white."""
    import numpy as np

    values = np.asarray(image.convert("I")).astype(np.int64)
    if isinstance(transparent := image.info.get("transparency"), int):
        values = np.where(values == transparent, 65535, values)
    return Image.fromarray(((values.clip(0, 65535) + 128) // 257).astype(np.uint8))


def _within(image: Image.Image, max_pixels: int) -> tuple[Image.Image, bool]:
    """The picture at no more than `max_pixels`, aspect ratio kept, and whether it had to be resized."""
    width, height = image.size
    if width * height <= max_pixels:
        return image, False
    scale = math.sqrt(max_pixels / (width * height))
    columns, rows = max(1, math.floor(width * scale)), max(1, math.floor(height * scale))
    columns, rows = min(columns, max_pixels // rows), min(rows, max(1, max_pixels // columns))  # A side of one pixel stays.
    return image.convert("RGB").resize((columns, rows), Image.Resampling.LANCZOS), True


def _path(name: str, folder: Path) -> Path:
    """A path as written on any system: backslashes separate folders unless a file of that very name is there."""
    if os.name != "nt" and DRIVE.match(name):
        raise ValueError(f"its image {name!r} names a drive of a Windows machine. Write it relative to the file of rows.")
    _encodable(name)
    there = folder / name
    if "\\" in name and not _exists(there):
        return folder / name.replace("\\", "/")
    return there


def _from_address(scheme: str, value: str, folder: Path) -> Path:
    if scheme != "file":
        raise ValueError(f"its image is a web address ({value[:60]}), and nothing is downloaded. Download the pictures and name the files.")
    parts = urlsplit(value)
    if parts.netloc not in ("", "localhost"):
        raise ValueError(f"its image {value[:60]} lies on the host {parts.netloc}. A file:// address of this machine has three slashes.")
    _encodable(path := unquote(parts.path))
    return folder / path


def _encodable(name: str) -> None:
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        raise ValueError(f"its image is no file name: {name[:60]!r}.") from None
    if "\0" in name:
        raise ValueError(f"its image is no file name: {name[:60]!r}.")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _from_base64(text: str) -> bytes:
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"its image is not base64 ({error}): {text[:40]!r}.") from None
    if not data:
        raise ValueError("its image is empty.")
    return data


def _picture_bytes(text: str) -> bytes | None:
    """The bytes that base64 stands for, if they begin as a picture does."""
    return _from_base64(text) if _begins_as_a_picture(text) else None


def _begins_as_a_picture(text: str) -> bool:
    packed = "".join(text[:64].split())
    try:
        return base64.b64decode(packed[: len(packed) // 4 * 4], validate=True).startswith(MAGIC)
    except (binascii.Error, ValueError):
        return False
