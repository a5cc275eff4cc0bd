"""Checksums of all files in a directory, as `sha256sum` writes them: `cd step_000200 && sha256sum --check SHA256SUMS`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SUMS = "SHA256SUMS"
NUM_THREADS = 4
"""Files hashed side by side: hashing leaves Python's lock alone, and a large checkpoint is several files."""
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def write_sums(directory: Path, *, coming: Mapping[str, str]) -> None:
    """Write SHA256SUMS of what lies in `directory`, and of texts that will lie there, by name.

    Those come last, so sums that were cut short lack them.
    """
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != SUMS)
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        found = dict(zip((path.relative_to(directory).as_posix() for path in files), threads.map(_sum, files), strict=True))
    found |= {name: hashlib.sha256(text.encode("utf-8")).hexdigest() for name, text in coming.items()}
    (directory / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in found.items()), encoding="utf-8")


def damage(directory: Path, *, last: str) -> str | None:
    """What is not as it was when SHA256SUMS was written, in words; None when all is, or when no sums were ever written.

    `last` is the name that stands on the last line of sums that are whole.
    """
    sums = directory / SUMS
    if not sums.exists():  # Written before there were sums.
        return None
    try:
        lines = [_LINE.fullmatch(line) for line in sums.read_text(encoding="utf-8").splitlines()]
        expected = {match[2]: match[1] for match in lines if match}
        if None in lines or next(reversed(expected), None) != last:
            return f"{SUMS} is not whole"
        for name in expected:
            if not (directory / name).is_file():
                return f"{name} is missing"
        with ThreadPoolExecutor(NUM_THREADS) as threads:
            found = threads.map(_sum, (directory / name for name in expected))
            return next((f"{name} was changed" for name, digest in zip(expected, found, strict=True) if digest != expected[name]), None)
    except (OSError, UnicodeDecodeError) as error:
        return f"it cannot be read: {error}"


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
