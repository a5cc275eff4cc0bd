"""Pictures of a report's page for docs/studies.md, by a headless Chromium: desktop, phone and dark, into docs/figures.

    python docs/generate/screenshots.py multirun/starved/report/report.html        (the study of docs/tutorial.md)

Not part of `make docs`: fonts and anti-aliasing differ from machine to machine.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

FIGURES = Path(__file__).resolve().parents[1] / "figures"
SHOTS = {"report_desktop": (1280, 2420, False), "report_phone": (390, 2900, False), "report_dark": (1280, 1000, True)}
"""Name -> width and height in CSS pixels, and whether dark."""
LEAST_WINDOW = 500
"""Width below which Chromium makes no window: a narrower page is shown in a frame."""
COLORS = 256
"""Of a palette, which such a page needs no more than."""


def main(page: Path) -> int:
    """Write the pictures of `SHOTS` and print their paths; exit code 2 without a page or a Chromium."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None or not page.is_file():
        lacking = (
            f"{page} is no file: run `percasym report` first." if browser else "No chromium, chromium-browser or google-chrome on PATH."
        )
        print(lacking, file=sys.stderr)
        return 2
    for name, (width, height, dark) in SHOTS.items():
        picture = Image.open(io.BytesIO(shot(browser, page.resolve(), width, height, dark=dark))).convert("RGB")
        path = FIGURES / f"{name}.png"
        picture.crop((0, 0, width, height)).quantize(COLORS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)
        print(path)
    return 0


def shot(browser: str, page: Path, width: int, height: int, *, dark: bool) -> bytes:
    """The top of a page as PNG."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-background-networking"]
    with tempfile.TemporaryDirectory() as folder:
        shown = page
        if width < LEAST_WINDOW:
            shown = Path(folder, "frame.html")
            shown.write_text(f'<body style="margin:0"><iframe src="{page.as_uri()}" width="{width}" height="{height}" style="border:0">')
        out = Path(folder, "shot.png")
        own = [f"--user-data-dir={folder}/profile", f"--window-size={max(width, LEAST_WINDOW)},{height}", f"--screenshot={out}"]
        dark_flags = ["--blink-settings=preferredColorScheme=0"] if dark else []
        command = [browser, *flags, *own, *dark_flags, "--virtual-time-budget=4000", shown.as_uri()]
        subprocess.run(command, capture_output=True, check=True, timeout=300)
        return out.read_bytes()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/generate/screenshots.py REPORT.html")
    sys.exit(main(Path(sys.argv[1])))
