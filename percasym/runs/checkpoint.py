"""Atomic checkpoints with checksums: `checkpoints/step_000200/` holds SHA256SUMS, and `DONE` is written last.

A checkpoint is written into a hidden directory beside its final path, flushed to the disk and renamed, so it is complete or absent.
Its number is that of finished optimizer steps; a resumed run continues at exactly that step. To verify one by hand:
`cd step_000200 && sha256sum --check SHA256SUMS`.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

DONE = "DONE"
SUMS = "SHA256SUMS"
PARENTS = ("checkpoints", "samples")
"""Folders of a run in which files are written beside their final path."""
NUM_THREADS = 4
"""Files hashed in parallel: hashing releases the GIL, and a large checkpoint consists of several files."""
_NAME = re.compile(r"step_(\d{6,})")
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def write_checkpoint(root: Path, step: int, save: Callable[[Path], None], note: str = "") -> Path:
    """Let `save` fill the checkpoint of `step` under `root`, with `note` as the text of its DONE; returns its path."""
    path = checkpoint_path(root, step)
    fill(path, save)
    return complete_checkpoint(path, note)


def complete_checkpoint(path: Path, note: str) -> Path:
    """Write the sums and the DONE of a checkpoint that `fill` has filled, and let it appear at `path`."""

    def mark(directory: Path) -> None:
        write_sums(directory, pending={DONE: note})
        (directory / DONE).write_text(note, encoding="utf-8")

    return complete(path, mark)


def checkpoint_path(root: Path, step: int) -> Path:
    """Path of the checkpoint of `step` under `root`."""
    return root / f"step_{step:06d}"


def partial_path(path: Path) -> Path:
    """Where a directory is written before it is renamed to `path`."""
    return path.with_name(f".{path.name}.partial")


def write_directory(path: Path, save: Callable[[Path], None]) -> Path:
    """Let `save` fill a directory beside `path`, then rename it to `path`; when `save` fails, `path` stays as it was."""
    fill(path, save)
    return complete(path)


def fill(path: Path, save: Callable[[Path], None]) -> None:
    """Let `save` fill a directory beside `path`, which is not there yet; it is removed when `save` fails."""
    partial = partial_path(path)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with _removed_on_error(partial):
        save(partial)


def complete(path: Path, mark: Callable[[Path], None] = lambda directory: None) -> Path:
    """Flush what `fill` has filled to the disk, after `mark` has added to it, and rename it to `path`."""
    partial = partial_path(path)
    with _removed_on_error(partial):
        mark(partial)
        for file in (*partial.rglob("*"), partial):
            _sync(file)
    if path.exists():
        shutil.rmtree(path)
    partial.replace(path)
    _sync(path.parent)
    return path


@contextmanager
def _removed_on_error(partial: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def latest_checkpoint(root: Path, warn: Callable[[str], None] = lambda sentence: None) -> tuple[int, Path] | None:
    """Step and path of the newest undamaged checkpoint under `root`; None when there is none.

    Reads every file of a checkpoint to verify its checksums. Calls `warn` with a sentence for each newer checkpoint that is damaged.
    """
    for step, path in sorted(list_checkpoints(root), reverse=True):
        if (path / DONE).is_file():
            if (damage := find_damage(path, last=DONE)) is None:
                return step, path
            warn(f"{path} is damaged ({damage}): the run goes on from what is before it.")
    return None


def trained_model(path: Path) -> Path:
    """The Hugging Face directory that `path` names: `final` of a run directory, otherwise `path` itself.

    Raises FileNotFoundError for a run that has no `final` yet.
    """
    if not (path / "meta.json").is_file():
        return path
    if not (path / "final").is_dir():
        raise FileNotFoundError(f"{path} is a run without final/, because it is not finished. Name one of its checkpoints/step_<n>.")
    return path / "final"


def run_of_checkpoint(path: Path) -> Path | None:
    """The run directory of a training checkpoint `<run>/checkpoints/step_<n>`; None for any other path."""
    run = path.absolute().parent.parent
    is_one = path.absolute().parent.name == "checkpoints" and (path / DONE).is_file() and (run / "config.yaml").is_file()
    return run if is_one else None


def clear_partial(directory: Path) -> None:
    """Delete the partial files and directories that a killed process left in a run directory."""
    for partial in (*directory.glob(".*.partial"), *(path for name in PARENTS for path in directory.glob(f"{name}/.*.partial"))):
        if partial.is_dir() and not partial.is_symlink():
            shutil.rmtree(partial)
        else:
            partial.unlink()


def list_checkpoints(root: Path) -> Iterator[tuple[int, Path]]:
    """Step and path of everything under `root` that is named like a checkpoint, complete or not."""
    for path in root.iterdir() if root.is_dir() else ():
        if match := _NAME.fullmatch(path.name):
            yield int(match[1]), path


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Which older checkpoints are kept after a new one was written: the last ones, as fallbacks where one is damaged, and the best one."""

    last: int = 0
    """How many of the newest to keep; 0 keeps all."""
    best: str = ""
    """A metric: the checkpoint with its highest value (the first, among equals) is kept too."""

    def prune(self, root: Path, newest: int, scores: Mapping[int, float]) -> None:
        """Delete the other checkpoints up to step `newest` under `root`; `scores` are the values of `best` by step.

        A checkpoint beyond `newest` was passed over as damaged and is written again when the run gets there. A checkpoint without DONE
        is what a kill left half deleted; it is deleted too.
        """
        if not self.last:
            return
        past = sorted((step, path) for step, path in list_checkpoints(root) if step <= newest)
        complete = [step for step, path in past if (path / DONE).is_file()]
        best = max((step for step in complete if step in scores), key=lambda step: (scores[step], -step), default=newest)
        for step, path in past:
            if step not in (*complete[-self.last :], best):
                (path / DONE).unlink(missing_ok=True)
                shutil.rmtree(path)


def write_sums(directory: Path, *, pending: Mapping[str, str]) -> None:
    """Write SHA256SUMS of the files in `directory`, as `sha256sum` does, and of `pending` texts that will be written there, by name.

    The pending ones come last, so a truncated SHA256SUMS lacks them.
    """
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != SUMS)
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        sums = dict(zip((path.relative_to(directory).as_posix() for path in files), threads.map(_sum, files), strict=True))
    sums |= {name: hashlib.sha256(text.encode("utf-8")).hexdigest() for name, text in pending.items()}
    (directory / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in sums.items()), encoding="utf-8")


def find_damage(directory: Path, *, last: str) -> str | None:
    """The first deviation from SHA256SUMS, in words; None when there is none, or when there is no SHA256SUMS.

    `last` is the name on the last line of a complete SHA256SUMS.
    """
    sums = directory / SUMS
    if not sums.exists():  # Written before checkpoints had checksums.
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


def _sync(path: Path) -> None:
    """Flush a file, or the entries of a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
