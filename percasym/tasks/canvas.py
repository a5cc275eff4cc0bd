"""Draw the pictures of all generated tasks; `Look` sets how hard a picture is to read, independent of its content.

Marks are drawn at a multiple of the final size and averaged down, with packaged fonts, so a key gives the same pixels on every machine.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONTS = {
    "sans": "DejaVuSans.ttf",
    "bold": "DejaVuSans-Bold.ttf",
    "serif": "DejaVuSerif.ttf",
    "mono": "DejaVuSansMono.ttf",
    "condensed": "DejaVuSansCondensed-Bold.ttf",
    "italic": "DejaVuSerif-BoldItalic.ttf",
}
OVERSAMPLING = 4  # Factor of the drawing size: enough for smooth 1-pixel strokes at 64 pixels.
MAX_PX = 4096  # Of a side (our choice): oversampled, such a picture needs 1 GB.

Point = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Visual difficulty of the pictures; no option changes the percept."""

    image_px: int = 64
    """Side of the square picture in pixels."""
    fonts: tuple[str, ...] = ("bold",)
    """Fonts; one is drawn for each picture."""
    glyph: tuple[float, float] = (0.75, 0.75)
    """Range of the height of a glyph as a fraction of its place, drawn for each glyph."""
    contrast: tuple[float, float] = (1.0, 1.0)
    """Range of the contrast between ink and paper, in [0, 1], drawn for each picture."""
    dark_frac: float = 0.0
    """Share of pictures with light ink on dark paper."""
    noise: float = 0.0
    """Standard deviation of the pixel noise, in units of the full range."""
    jitter: float = 0.0
    """Maximum displacement of a mark, as a fraction of its place."""

    def __post_init__(self) -> None:
        if not 16 <= self.image_px <= MAX_PX:
            raise ValueError(f"look.image_px must lie between 16 and {MAX_PX}, got {self.image_px}.")
        if unknown := [name for name in self.fonts if name not in FONTS]:
            raise ValueError(f"look.fonts has no font {unknown[0]!r}; the fonts are {', '.join(FONTS)}.")
        if missing := [name for name in self.fonts if not _file(name).is_file()]:
            raise ValueError(f"The font file {FONTS[missing[0]]} that travels with percasym is not there. Install percasym again.")
        if not self.fonts:
            raise ValueError(f"look.fonts must name at least one of {', '.join(FONTS)}.")
        for name in ("glyph", "contrast"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise ValueError(f"look.{name} must be [low, high] with 0 < low <= high <= 1, got [{low}, {high}].")
        if not 0 <= self.dark_frac <= 1:
            raise ValueError(f"look.dark_frac must lie in [0, 1], got {self.dark_frac}.")
        if self.noise < 0 or self.jitter < 0:
            raise ValueError(f"look.noise and look.jitter must be >= 0, got {self.noise} and {self.jitter}.")


@lru_cache(maxsize=1024)
def font(name: str, height: int) -> ImageFont.FreeTypeFont:
    """A packaged font at a height in (oversampled) pixels."""
    with _file(name).open("rb") as file:
        return ImageFont.truetype(io.BytesIO(file.read()), height, layout_engine=ImageFont.Layout.BASIC)


def _file(name: str) -> Traversable:
    return files("percasym") / "assets" / "fonts" / FONTS[name]


class Canvas:
    """A square picture; coordinates are in final pixels from the upper left corner."""

    def __init__(self, look: Look, rng: Random) -> None:
        self.look, self.rng = look, rng
        contrast = rng.uniform(*look.contrast)
        lighter = rng.uniform(contrast, 1.0)
        dark, light = lighter - contrast, lighter
        self.paper, self.ink = (dark, light) if rng.random() < look.dark_frac else (light, dark)
        self.font = rng.choice(look.fonts)
        side = look.image_px * OVERSAMPLING
        self._image = Image.new("L", (side, side), round(255 * self.paper))
        self._draw = ImageDraw.Draw(self._image)

    def moved(self, at: Point, place: float) -> Point:
        """`at` displaced by the look's jitter, for a mark whose place is `place` pixels wide."""
        reach = self.look.jitter * place
        return at[0] + self.rng.uniform(-reach, reach), at[1] + self.rng.uniform(-reach, reach)

    def line(self, start: Point, end: Point, width: float) -> None:
        """Draw a straight line."""
        ends = [(x * OVERSAMPLING, y * OVERSAMPLING) for x, y in (start, end)]
        self._draw.line(ends, fill=self._level(self.ink), width=max(1, round(width * OVERSAMPLING)))

    def disc(self, centre: Point, radius: float, outline: float) -> None:
        """Draw a disc of paper colour with an outline of ink."""
        x, y = centre
        box = [(v) * OVERSAMPLING for v in (x - radius, y - radius, x + radius, y + radius)]
        self._draw.ellipse(box, fill=self._level(self.paper), outline=self._level(self.ink), width=max(1, round(outline * OVERSAMPLING)))

    def glyph(self, text: str, centre: Point, place: float) -> None:
        """Draw `text` centred at `centre`, at the look's height for a place of `place` pixels."""
        height = max(4, round(self.rng.uniform(*self.look.glyph) * place * OVERSAMPLING))
        x, y = centre
        self._draw.text((x * OVERSAMPLING, y * OVERSAMPLING), text, fill=self._level(self.ink), font=font(self.font, height), anchor="mm")

    def png(self) -> bytes:
        """The picture averaged down to its final size, with noise, as PNG bytes."""
        small = self._image.reduce(OVERSAMPLING)
        if self.look.noise:
            grain = np.random.Generator(np.random.PCG64(self.rng.getrandbits(64))).standard_normal((small.height, small.width))
            levels = np.asarray(small, dtype=np.float64) + 255 * self.look.noise * grain
            small = Image.fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8))
        buffer = io.BytesIO()
        small.convert("RGB").save(buffer, format="PNG", compress_level=1)
        return buffer.getvalue()

    @staticmethod
    def _level(value: float) -> int:
        return round(255 * value)
