"""Checkpoints that are whole or absent: `checkpoints/step_000200/` with its checksums, and `DONE` written last.

A checkpoint is written into a hidden directory beside its place, flushed to the disk, and renamed.
The number is that of finished optimizer steps, so a run resumes at exactly that step.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from percasym.runs.sums import damage, write_sums

DONE = "DONE"
_NAME = re.compile(r"step_(\d{6,})")


def write_checkpoint(root: Path, step: int, save: Callable[[Path], None], note: str = "") -> Path:
    """Let `save` fill a directory and make it the checkpoint of `step` under `root`, with `note` in its DONE; returns its path."""

    def save_and_mark(directory: Path) -> None:
        save(directory)
        write_sums(directory, coming={DONE: note})
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
    _sync(path.parent)
    return path


def latest_checkpoint(root: Path, say: Callable[[str], None] = lambda sentence: None) -> tuple[int, Path] | None:
    """Step and path of the newest checkpoint under `root` that is as it was written; None when there is none.

    All its files are read for that. `say` hears of each newer one that is damaged.
    """
    for step, path in sorted(numbered(root), reverse=True):
        if (path / DONE).is_file():
            if (wrong := damage(path, last=DONE)) is None:
                return step, path
            say(f"{path} is damaged ({wrong}): the run goes on from what is before it.")
    return None


def clear_partial(directory: Path) -> None:
    """Delete what a killed process left half written in a run directory."""
    for aside in (*directory.glob(".*.partial"), *directory.glob("*/.*.partial")):
        if aside.is_dir() and not aside.is_symlink():
            shutil.rmtree(aside)
        else:
            aside.unlink()


def numbered(root: Path) -> Iterator[tuple[int, Path]]:
    """Step and path of all that is named like a checkpoint under `root`, whole or not."""
    for path in root.iterdir() if root.is_dir() else ():
        if match := _NAME.fullmatch(path.name):
            yield int(match[1]), path


def _flush(directory: Path) -> None:
    for path in (*directory.rglob("*"), directory):
        _sync(path)


def _sync(path: Path) -> None:
    """Have the system write a file, or the entries of a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
