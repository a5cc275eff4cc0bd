"""Checkpoints that are whole or absent: `checkpoints/step_000200/` with `DONE` written last.

A checkpoint is written into a hidden directory beside its place, flushed to the disk, and renamed.
The number is that of finished optimizer steps, so a run resumes at exactly that step.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

DONE = "DONE"
_NAME = re.compile(r"step_(\d{6,})")


def write_checkpoint(root: Path, step: int, save: Callable[[Path], None], note: str = "") -> Path:
    """Let `save` fill a directory and make it the checkpoint of `step` under `root`, with `note` in its DONE; returns its path."""

    def save_and_mark(directory: Path) -> None:
        save(directory)
        (directory / DONE).write_text(note, encoding="utf-8")

    return write_directory(place(root, step), save_and_mark)


def place(root: Path, step: int) -> Path:
    """Where the checkpoint of `step` lies under `root`."""
    return root / f"step_{step:06d}"


def partial(path: Path) -> Path:
    """Where a directory is written before it is renamed to `path`."""
    return path.with_name(f".{path.name}.partial")


def write_directory(path: Path, save: Callable[[Path], None]) -> Path:
    """Let `save` fill a directory beside `path`, then rename it into place; a failing `save` leaves `path` as it was."""
    aside = partial(path)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        save(aside)
        _flush(aside)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    if path.exists():
        shutil.rmtree(path)
    aside.replace(path)
    return path


def latest_checkpoint(root: Path) -> tuple[int, Path] | None:
    """Step and path of the newest complete checkpoint under `root`; None when there is none."""
    found = [
        (int(match[1]), path)
        for path in (root.iterdir() if root.is_dir() else ())
        if (match := _NAME.fullmatch(path.name)) and (path / DONE).is_file()
    ]
    return max(found, default=None)


def _flush(directory: Path) -> None:
    for path in directory.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
