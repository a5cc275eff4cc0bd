"""A run is a directory of plain files, written by rank 0.

    config.yaml  meta.json  metrics.jsonl  summary.json  samples/<split>_<step>.jsonl
    checkpoints/step_000200/  final/

Tables, figures and regrading read these files and nothing else. A step counts finished optimizer steps: 0 is before training.
`RunDirectory.open` creates a new run or resumes an unfinished one of the same configuration; a finished one is left alone, and another
configuration is refused (`percasym.runs.identity`). On resume, metrics.jsonl is truncated to the length that it had at the checkpoint
(recorded in the checkpoint's DONE), so a resumed run continues the same curve, also in another directory, and logs no step twice.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import yaml

from percasym.config.files import json_lines, parsed_json, read_json
from percasym.config.redaction import redacted_values, redacted_words
from percasym.config.schema import read
from percasym.runs import checkpoint
from percasym.runs.background import Background
from percasym.runs.checkpoint import DONE, Retention
from percasym.runs.identity import check_identity, delete_run, find
from percasym.runs.progress import ProgressBar
from percasym.runs.records import document, file_name, line, list_samples, plain, read_lines, write_lines, write_whole
from percasym.runs.requests import Requests
from percasym.runs.space import RESERVE, keep_reserve, require_room, size_of, write_in_reserve
from percasym.runs.trackers import Mirror, NoTracker, Tracker

METRICS = "metrics.jsonl"
FAILURE = "failure.log"
"""Output of the ranks of a run in which one failed."""
SECONDS_TO_COMPLETE = 10.0
"""How long a run that stops at once waits for the checksums of its last checkpoint."""
PACKAGES = ("percasym", "torch", "transformers", "deepspeed", "numpy", "pillow")
"""Packages whose version can change a number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPosition:
    """How far metrics.jsonl was when a checkpoint was written; stored in its DONE."""

    step: int
    """Finished optimizer steps; -1 before the first evaluation."""
    num_bytes: int = 0
    """Length of metrics.jsonl."""
    num_lines: int = 0
    """Its lines: rows of the tracker."""
    identity: str | None = None
    """The run's id for its tracker; None where the checkpoint does not record it."""

    def note(self) -> str:
        """The text of DONE."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, checkpoint: Path, step: int) -> LogPosition:
        """Parse the DONE of a checkpoint; older checkpoints hold the number of bytes alone."""
        note = read_json(checkpoint / DONE, links=False)
        position = cls(step=step, num_bytes=note) if isinstance(note, int) else read(note, cls, f"{checkpoint / DONE}")
        if position.identity is not None:
            check_identity(position.identity, checkpoint / DONE)
        return position


class RunDirectory:
    """One run directory, opened for writing with `RunDirectory.open`."""

    def __init__(
        self, path: Path, meta: Mapping[str, Any], status: Literal["new", "resumable", "finished"], clock: Callable[[], float]
    ) -> None:
        self.path = path
        self.status = status
        """What was found: `new`, `resumable` (continue at `latest_checkpoint`) or `finished` (nothing may be written)."""
        self._meta, self._clock = dict(meta), clock
        self._opened, self._seconds_before = clock(), float(meta["seconds"])
        self.remarks: list[str] = []
        """Sentences to print when the run is resumed."""
        self.requests = Requests()
        """Signals that this process received."""
        self.last_step: int | None = None
        """The step of the last `log`."""
        self.final_bytes: int | None = None
        """Of final/, where that is known before."""
        self._keep = Retention()
        self._background = Background()
        self._latest: tuple[int, Path] | None = None
        self._num_lines = 0  # Logged by this run, including lines of a metrics.jsonl that its checkpoint was copied from.
        self._mirror: Mirror = NoTracker()

    @classmethod
    def open(
        cls,
        path: Path,
        config: Mapping[str, Any],
        overwrite: bool = False,
        *,
        about: Mapping[str, Any] | None = None,
        tracker: Tracker | None = None,
        keep: Retention | None = None,
        clock: Callable[[], float] = time.time,
    ) -> RunDirectory:
        """Open the run of `config` at `path`; `about` (the device, say) is added to meta.json.

        On resume, metrics and samples beyond the latest checkpoint (all when there is none) are deleted, so no step is logged twice.
        Raises RunConflict when the directory holds another configuration, or files that are not a run's.
        """
        wanted, about = redacted_values(plain(config)), about or {}
        found = find(path, wanted, overwrite=overwrite)
        if found.status == "new":
            if found.meta is not None:
                delete_run(path, found.meta["id"])
            run = cls._create(path, wanted, about, clock)
        else:
            assert found.meta is not None
            run = cls(path, found.meta, found.status, clock)
            if found.status == "resumable":
                keep_reserve(path)
                run._resume(about)
        run._keep = keep or run._keep
        if run.status != "finished" and tracker is not None:
            try:
                run._mirror = tracker.start(directory=path, identity=run._meta["id"], config=wanted, num_lines=run._num_lines)
            except ValueError as error:
                run.failed(str(error))
                raise
        return run

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Append the numbers of a step; those that are not finite become null and are listed under `not_finite`."""
        numbers = plain(values)
        record = {"step": step} | numbers
        if lost := {name: str(float(values[name])) for name, number in numbers.items() if number is None and values[name] is not None}:
            record["not_finite"] = lost
        with self._writable(METRICS).open("a", encoding="utf-8") as file:
            file.write(line(record) + "\n")
        self._num_lines += 1
        self.last_step = step
        self._mirror.log(step, numbers)

    def samples(self, split: str, step: int, records: Sequence[Mapping[str, Any]]) -> Path:
        """Write the records of one evaluation, replacing an earlier attempt at the same step."""
        path = self._writable(file_name(split, step))
        path.parent.mkdir(exist_ok=True)
        write_lines(path, records)
        self._mirror.samples(split, step, records)
        return path

    def read_samples(self, split: str, step: int) -> list[dict[str, Any]] | None:
        """The records that `samples` wrote, or None: a resumed run does not evaluate the same step again."""
        path = self.path / file_name(split, step)
        return read_lines(path) if path.exists() else None

    def warn(self, sentence: str) -> None:
        """Print a warning on stderr, which a live progress bar redirects above itself, and keep it in meta.json."""
        print(sentence, file=sys.stderr, flush=True)
        self._write_meta(warnings=[*self._meta.get("warnings", []), sentence])

    def progress(self, total: int, title: str, start: int = 0) -> ProgressBar:
        """A progress bar as a context manager: `advance(step, loss=...)`."""
        return ProgressBar(total, title, start)

    def checkpoint(self, step: int, save: Callable[[Path], None]) -> Path:
        """Let `save` fill the checkpoint of `step`; a crash leaves no checkpoint rather than half of one.

        Its checksums are computed, and it appears at the path that this returns, in the background, until `settle`. Its DONE records the
        position of metrics.jsonl. Raises NoRoomError before anything is written, and what the background raised for the one before.
        """
        self.settle()
        if self._latest:
            require_room(self.path, size_of(self._latest[1]), "A checkpoint")
        num_bytes = synced_bytes(self.path / METRICS)
        position = LogPosition(step=step, num_bytes=num_bytes, num_lines=self._num_lines, identity=self._meta["id"])
        path = checkpoint.checkpoint_path(self._writable("checkpoints"), step)
        checkpoint.fill(path, save)
        scores = self.logged(self._keep.best)

        def complete() -> None:
            checkpoint.complete_checkpoint(path, position.note())
            self._keep.prune(path.parent, newest=step, scores=scores)
            self._latest = step, path

        self._background.start(complete)
        self._write_meta(seconds=self._seconds())
        return path

    def settle(self) -> None:
        """Wait until the last checkpoint is complete. Raises what went wrong with it."""
        self._background.wait()

    def latest_checkpoint(self) -> tuple[int, Path] | None:
        """Step and path of the newest complete checkpoint."""
        self.settle()
        return self._latest

    def logged(self, name: str) -> dict[int, float]:
        """One number of metrics.jsonl by step; steps where it was not finite are left out."""
        path = self.path / METRICS
        return {record["step"]: record[name] for record in (read_lines(path) if path.exists() else []) if record.get(name) is not None}

    def final(self, save: Callable[[Path], None]) -> Path:
        """Let `save` fill final/, the trained model. Raises NoRoomError before anything is written."""
        self.settle()
        if self._latest:
            known = self.final_bytes or size_of(self._latest[1], "*.safetensors")
            require_room(self.path, known, "The final model")
        return checkpoint.write_directory(self._writable("final"), save)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json and set the status to `done`; the run is never written again."""
        self.settle()
        complete = plain({"status": "done", **summary})
        write_whole(self._writable("summary.json"), document(complete))
        self._close("done", complete, failed=False)

    def interrupted(self) -> None:
        """Set the status to `interrupted`; opening the run again resumes it."""
        self._close("interrupted", {}, failed=True)

    def failed(self, reason: str) -> None:
        """Set the status to `failed` for `reason`; opening the run again resumes it."""
        self._close("failed", {}, failed=True, reason=reason)

    @classmethod
    def _create(cls, path: Path, config: Mapping[str, Any], about: Mapping[str, Any], clock: Callable[[], float]) -> RunDirectory:
        path.mkdir(parents=True, exist_ok=True)
        keep_reserve(path)
        meta = {"id": secrets.token_hex(4), "status": "running", "started": _isoformat(clock()), "seconds": 0.0}
        meta |= provenance() | plain(about)
        write_whole(path / "meta.json", document(meta))
        write_whole(path / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))  # Last: its presence makes it a run.
        return cls(path, meta, "new", clock)

    def _resume(self, about: Mapping[str, Any]) -> None:
        """Go back to the latest checkpoint."""
        checkpoint.clear_partial(self.path)
        latest = self._latest = checkpoint.latest_checkpoint(self.path / "checkpoints", self.remarks.append)
        position = LogPosition.read(latest[1], latest[0]) if latest else LogPosition(step=-1)
        session = {"step": max(0, position.step), "started": _isoformat(self._clock())} | provenance() | plain(about)
        self._meta.pop("reason", None)
        resumed = [*self._meta.get("resumed", []), session]
        self._write_meta(id=position.identity or self._meta["id"], status="running", resumed=resumed)
        self._num_lines = truncate_metrics(self.path / METRICS, position)
        for samples in list_samples(self.path):
            if samples.step > position.step:
                samples.path.unlink()

    def _writable(self, name: str) -> Path:
        assert self._meta["status"] == "running", f"{self.path} is {self._meta['status']}: nothing more may be written to {name}"
        return self.path / name

    def _close(self, status: str, summary: Mapping[str, Any], *, failed: bool, **more: str) -> None:
        self._writable("meta.json")
        with suppress(Exception):  # The run has ended for another reason, or has waited already.
            self._background.wait(SECONDS_TO_COMPLETE)
        self._write_meta(status=status, seconds=self._seconds(), **more)
        (self.path / RESERVE).unlink(missing_ok=True)
        try:
            self._mirror.finish(summary, failed=failed)
        except Exception as error:  # The run has ended and its directory is whole; what the tracker lacks is sent again from there.
            reason = f"{type(error).__name__}: {error}"
            print(f"The tracker did not take the end of {self.path} ({reason}). The directory has all of it.", file=sys.stderr)

    def _seconds(self) -> float:
        return round(self._seconds_before + max(0.0, self._clock() - self._opened), 3)  # The clock may be set back.

    def _write_meta(self, **changes: Any) -> None:
        meta = self._meta | changes
        write_in_reserve(self.path / "meta.json", document(meta))
        self._meta = meta  # After the write: where it failed, the run is what the disk says.


def truncate_metrics(metrics: Path, position: LogPosition) -> int:
    """Cut metrics.jsonl after the last line that the checkpoint recorded; returns the number of lines that the run has logged in all.

    A checkpoint that was copied from another run's directory records more lines than this file has, or steps that it lacks.
    """
    length = num_lines = 0
    for number, record in json_lines(metrics, links=False) if metrics.exists() else ():
        beyond = length + len(record) > position.num_bytes
        if beyond or not record.endswith(b"\n"):
            break
        step = values.get("step") if isinstance(values := parsed_json(record, f"Line {number} of {metrics}"), dict) else None
        if not isinstance(step, int):
            raise ValueError(f"Line {number} of {metrics} names no step: {record[:80]!r}. Restore it, or clear the run away.")
        if step > position.step:
            break
        length, num_lines = length + len(record), num_lines + 1
    if synced_bytes(metrics) > length:
        os.truncate(metrics, length)
    return max(num_lines, position.num_lines)


def synced_bytes(path: Path) -> int:
    """Length of a file after flushing it to the disk; 0 when there is none."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size


def provenance() -> dict[str, Any]:
    """`git` and `dirty` (None outside a checkout of percasym), `versions`, `argv`. Without the environment, which may hold secrets."""
    root = Path(__file__).resolve().parents[2]
    commit, dirty = _commit(root)
    return {"git": commit, "dirty": dirty, "versions": _versions(), "argv": redacted_words(sys.argv)}


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # An optional package that is not installed cannot change a number.
    return found


def _commit(root: Path) -> tuple[str | None, bool | None]:
    """Commit of the checkout with the top `root` and whether it is dirty; None for an enclosing repository that is not percasym's."""
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top) != root:
        return None, None
    changes = _git(root, "status", "--porcelain")
    return _git(root, "rev-parse", "HEAD"), None if changes is None else bool(changes)


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _isoformat(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
