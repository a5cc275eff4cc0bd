"""A run is a directory: configuration, provenance, every number and every sample, as plain files.

    config.yaml  meta.json  metrics.jsonl  summary.json  samples/<split>_<step>.jsonl
    checkpoints/step_000200/  final/

Tables, figures and regrading read these files and nothing else. A step counts finished optimizer steps:
0 is before training. ForcedPrefix a path decides what becomes of it: nothing there is a new run, an
unfinished run of the same configuration resumes, a finished one is left alone, another
configuration is refused.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import yaml

from percasym.runs import checkpoint
from percasym.runs.history import Said, forget_samples, settled_bytes, take_back, values_by_step
from percasym.runs.identity import delete_run, held_config, held_meta, is_same_run
from percasym.runs.progress import ProgressBar
from percasym.runs.provenance import provenance
from percasym.runs.records import document, line, plain, read_lines, write_lines, write_whole
from percasym.runs.requests import Requests
from percasym.runs.retention import Retention
from percasym.runs.space import require_room, size_of
from percasym.runs.trackers import Mirror, NoTracker, Tracker

METRICS = "metrics.jsonl"
FAILURE = "failure.log"
"""What the ranks of a run said when one of them failed."""


class RunDirectory:
    """One run directory, opened for writing with `Run.open`."""

    def __init__(self, path: Path, meta: dict[str, Any], status: Literal["new", "interrupted", "done"], clock: Callable[[], float]) -> None:
        self.path = path
        self.status = status
        """What was found: `new`, `interrupted` (resume at `latest_checkpoint`) or `done` (nothing may be written)."""
        self._meta, self._clock = meta, clock
        self._opened, self._seconds_before = clock(), float(meta["seconds"])
        self.remarks: list[str] = []
        """What whoever resumes it should know, in sentences."""
        self.requests = Requests()
        """What was asked of it from outside."""
        self._keep = Retention()
        self._latest: tuple[int, Path] | None = None
        self._num_lines = 0  # Said by this run, wherever metrics.jsonl lies that holds them.
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

        On resume, metrics and samples beyond the latest checkpoint (all of them when there is none) are
        taken back, so no step is ever written twice.
        Raises RunConflict when the directory holds another configuration, or files that are not a run's.
        """
        wanted = plain(config)
        if overwrite and held_config(path) is not None:
            delete_run(path)
        run = cls._reopen(path, about or {}, clock) if is_same_run(path, wanted) else cls._create(path, wanted, about or {}, clock)
        run._keep = keep or run._keep
        if run.status != "done" and tracker is not None:
            try:
                run._mirror = tracker.start(directory=path, identity=run._meta["id"], config=wanted, num_lines=run._num_lines)
            except ValueError as error:
                run.failed(str(error))
                raise
        return run

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Append the numbers of a step; what is not finite becomes null and is named under `not_finite`."""
        numbers = plain(values)
        record = {"step": step} | numbers
        if lost := {name: str(float(values[name])) for name, number in numbers.items() if number is None and values[name] is not None}:
            record["not_finite"] = lost
        with self._writable(METRICS).open("a", encoding="utf-8") as file:
            file.write(line(record) + "\n")
        self._num_lines += 1
        self._mirror.log(step, numbers)

    def samples(self, split: str, step: int, records: Sequence[Mapping[str, Any]]) -> Path:
        """Write the records of one evaluation, replacing an earlier attempt at the same step."""
        path = self._writable("samples") / f"{split}_{step:06d}.jsonl"
        path.parent.mkdir(exist_ok=True)
        write_lines(path, records)
        self._mirror.samples(split, step, records)
        return path

    def read_samples(self, split: str, step: int) -> list[dict[str, Any]] | None:
        """What `samples` wrote, or None: a resumed run need not evaluate the same step again."""
        path = self.path / "samples" / f"{split}_{step:06d}.jsonl"
        return read_lines(path) if path.exists() else None

    def progress(self, total: int, title: str, start: int = 0) -> ProgressBar:
        """A context manager that shows how far the work is: `advance(step, loss=...)`."""
        return ProgressBar(total, title, start)

    def checkpoint(self, step: int, save: Callable[[Path], None]) -> Path:
        """Let `save` fill the checkpoint of `step`; a crash in between leaves no checkpoint rather than half of one.

        Its DONE holds what a run that resumes here has already said. Raises NoRoomError before anything is written.
        """
        if self._latest:
            require_room(self.path, size_of(self._latest[1]), "A checkpoint")
        num_bytes = settled_bytes(self.path / METRICS)
        said = Said(step=step, num_bytes=num_bytes, num_lines=self._num_lines, identity=self._meta["id"])
        path = checkpoint.write_checkpoint(self._writable("checkpoints"), step, save, note=said.note())
        self._keep.prune(path.parent, newest=step, scores=self.logged(self._keep.best))
        self._write_meta(seconds=self._seconds())
        self._latest = step, path
        return path

    def latest_checkpoint(self) -> tuple[int, Path] | None:
        """Step and path of the newest checkpoint that is whole."""
        return self._latest

    def logged(self, name: str) -> dict[int, float]:
        """A number of metrics.jsonl, by step."""
        return values_by_step(self.path / METRICS, name)

    def final(self, save: Callable[[Path], None]) -> Path:
        """Let `save` fill final/, the trained model."""
        return checkpoint.write_directory(self._writable("final"), save)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json and mark the run as done; it is never written again."""
        whole = plain({"status": "done", **summary})
        write_whole(self._writable("summary.json"), document(whole))
        self._close("done", whole, failed=False)

    def interrupted(self) -> None:
        """Mark the run as stopped by its user; opening it again resumes."""
        self._close("interrupted", {}, failed=True)

    def failed(self, reason: str) -> None:
        """Mark the run as failed for `reason`; opening it again resumes."""
        self._close("failed", {}, failed=True, reason=reason)

    @classmethod
    def _create(cls, path: Path, config: Mapping[str, Any], about: Mapping[str, Any], clock: Callable[[], float]) -> RunDirectory:
        path.mkdir(parents=True, exist_ok=True)
        meta = {"id": secrets.token_hex(4), "status": "running", "started": _moment(clock()), "seconds": 0.0} | provenance() | plain(about)
        write_whole(path / "meta.json", document(meta))
        write_whole(path / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))  # Last: now it is a run.
        return cls(path, meta, "new", clock)

    @classmethod
    def _reopen(cls, path: Path, about: Mapping[str, Any], clock: Callable[[], float]) -> RunDirectory:
        meta = held_meta(path)
        if meta["status"] == "done":
            return cls(path, meta, "done", clock)
        run = cls(path, meta, "interrupted", clock)
        checkpoint.clear_partial(path)
        found = run._latest = checkpoint.latest_checkpoint(path / "checkpoints", run.remarks.append)
        said = Said.read(found[1], found[0]) if found else Said(step=-1)
        session = {"step": max(0, said.step), "started": _moment(clock())} | provenance() | plain(about)
        run._meta.pop("reason", None)
        run._write_meta(id=said.identity or meta["id"], status="running", resumed=[*meta.get("resumed", []), session])
        run._num_lines = take_back(path / METRICS, said)
        forget_samples(path, beyond=said.step)
        return run

    def _writable(self, name: str) -> Path:
        assert self._meta["status"] == "running", f"{self.path} is {self._meta['status']}: nothing more may be written to {name}"
        return self.path / name

    def _close(self, status: str, summary: Mapping[str, Any], *, failed: bool, **more: str) -> None:
        self._writable("meta.json")
        self._write_meta(status=status, seconds=self._seconds(), **more)
        self._mirror.finish(summary, failed=failed)

    def _seconds(self) -> float:
        return round(self._seconds_before + max(0.0, self._clock() - self._opened), 3)  # A clock may be set back.

    def _write_meta(self, **changes: Any) -> None:
        self._meta |= changes
        write_whole(self.path / "meta.json", document(self._meta))


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
