"""Experiment trackers (`tracker.*`): Weights & Biases shows the numbers of metrics.jsonl live; the run directory stays the record.
TensorBoard, whose writer is torch's, is in `percasym/app/tensorboard.py`.

Line n of metrics.jsonl is row n of the W&B run, W&B's own `_step`. Rows that W&B already has are not sent again, and lines that it
lacks are sent when the run is opened, so its history equals the file however often the run was interrupted, online or offline. `step`,
the optimizer's, is a column of each row and the x axis of every chart. The only file that imports wandb, and only when a run with
`tracker=wandb` starts.
"""

from __future__ import annotations

import io
import os
import re
import sys
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

from percasym.config.redaction import redacted_values, redacted_words
from percasym.runs.records import SampleFile, list_samples, option_name, read_lines

HIDDEN = re.compile(r"/(lo|hi|first|not_measurable|num_samples)$|^(time|tokens)/")
"""Metrics without a chart of their own: ends of intervals, early epochs, counts, clocks. They are sent like all others."""
MAX_ROWS = 32
"""Of one table: with a picture of about 8 kB in each row, a quarter of a megabyte."""


class Mirror(Protocol):
    """One run as a tracker shows it."""

    def log(self, step: int, values: Mapping[str, float | None]) -> None:
        """Send the numbers of a step: the next line of metrics.jsonl."""
        ...

    def samples(self, split: str, step: int, records: Iterable[Mapping[str, Any]]) -> None:
        """Send some of the samples of a step, before its numbers."""
        ...

    def finish(self, summary: Mapping[str, Any], *, failed: bool) -> None:
        """Close the run; called exactly once, however the run ended."""
        ...


class Tracker(Protocol):
    """How runs are mirrored: a frozen dataclass whose fields are `tracker.*`."""

    def start(self, *, directory: Path, identity: str, config: Mapping[str, Any], num_lines: int) -> Mirror:
        """Open the mirror of a run that has logged `num_lines` lines; the same identity continues the same mirror after an interruption.

        Raises ValueError when that fails.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NoTracker:
    """Keep the run directory only (`tracker=none`)."""

    def start(self, *, directory: Path, identity: str, config: Mapping[str, Any], num_lines: int) -> NoTracker:
        """Returns this object: there is no state."""
        return self

    def log(self, step: int, values: Mapping[str, float | None]) -> None:
        """No-op."""

    def samples(self, split: str, step: int, records: Iterable[Mapping[str, Any]]) -> None:
        """No-op."""

    def finish(self, summary: Mapping[str, Any], *, failed: bool) -> None:
        """No-op."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WandbTracker:
    """Mirror every run to Weights & Biases (`tracker=wandb`); one W&B run for each run directory, in the group of its study."""

    project: str = "percasym"
    """Project of W&B."""
    entity: str | None = None
    """User or team of W&B; null is the default of the account."""
    mode: Literal["auto", "online", "offline"] = "auto"
    """`auto` is online when there is a key (WANDB_API_KEY, or a login in ~/.netrc) and offline otherwise."""
    tags: tuple[str, ...] = ()
    """Added to those of task, model and balance."""

    def __post_init__(self) -> None:
        if self.mode not in ("auto", "online", "offline"):
            raise ValueError(f"tracker.mode must be auto, online or offline, got {self.mode!r}.")
        if find_spec("wandb") is None:
            raise ValueError("tracker=wandb needs the wandb package. Run `pip install wandb`, or choose tracker=none.")

    def start(self, *, directory: Path, identity: str, config: Mapping[str, Any], num_lines: int) -> WandbMirror:
        """Open a W&B run whose files lie in `directory`/wandb, and send what it lacks.

        Offline, W&B cannot continue an earlier session, so each session holds the whole run. Online it cannot delete rows: those that a
        resumed run repeats keep their first values.
        """
        import wandb

        mode = self._mode(wandb)
        try:
            run = wandb.init(
                project=self.project, entity=self.entity, id=identity, resume="allow" if mode == "online" else None,
                group=config.get("study"), job_type=option_name(config, "paradigm"), name="/".join(directory.absolute().parts[-2:]),
                tags=[tag for tag in (*(option_name(config, group) for group in ("task", "model", "balance")), *self.tags) if tag],
                config=redacted_values(config), dir=directory.absolute(), mode=mode,
                settings=wandb.Settings(
                    silent=True, console="off", disable_git=True, save_code=False, x_disable_meta=_argv_holds_secrets(),
                ),
            )  # fmt: skip
        except wandb.Error as error:
            raise ValueError(
                f"W&B could not open the run ({' '.join(str(error).split())}). Check key and network, or set tracker.mode=offline."
            ) from error
        mirror = WandbMirror(wandb, run, num_lines)
        mirror.catch_up(directory)
        mirror.supersede(directory)
        return mirror

    def _mode(self, wandb: Any) -> Any:
        if self.mode != "auto":
            return self.mode
        return os.environ.get("WANDB_MODE") or ("online" if wandb.login(prompt=False, verify=False) else "offline")


def _argv_holds_secrets() -> bool:
    """Whether W&B, which records the words of the command line as they are, would be sent one."""
    return redacted_words(sys.argv) != sys.argv


class WandbMirror:
    """An open W&B run."""

    def __init__(self, wandb: Any, run: Any, row: int) -> None:
        """`wandb` is the package, `run` the result of its init, `row` the number of the next line."""
        self._wandb, self._run, self._row = wandb, run, row
        self._num_sent = int(run.step)
        """Rows that W&B already has."""
        self._defined: set[str] = set()
        run.define_metric("step", hidden=True)

    def log(self, step: int, values: Mapping[str, float | None]) -> None:
        """Send one line; numbers that were not finite are left out."""
        if self._is_new_row:
            row = {name: value for name, value in values.items() if value is not None}
            for name in [name for name in row if name not in self._defined]:
                self._run.define_metric(name, step_metric="step", hidden=bool(HIDDEN.search(name)))
                self._defined.add(name)
            self._run.log({"step": step} | row, step=self._row, commit=True)
        self._row += 1

    def samples(self, split: str, step: int, records: Iterable[Mapping[str, Any]]) -> None:
        """Send the first of these samples as a table, in the row of the next line."""
        if self._is_new_row:
            shown = sample_table(records)
            rows = [[self._cell(value) for value in row] for row in shown.rows]
            made = self._wandb.Table(columns=list(shown.columns), data=rows)
            self._run.log({f"samples/{split}": made}, step=self._row, commit=False)

    def finish(self, summary: Mapping[str, Any], *, failed: bool) -> None:
        """Send the summary and close the run."""
        self._run.summary.update(redacted_values(summary))
        self._run.finish(exit_code=int(failed))

    def catch_up(self, directory: Path) -> None:
        """Send the lines and samples of the run directory that W&B lacks."""
        lines = list(recorded_lines(directory))
        self._row -= len(lines)
        for step, values, samples in lines:
            for split, records in samples if self._is_new_row else ():
                self.samples(split, step, records)
            self.log(step, values)

    def supersede(self, directory: Path) -> None:
        """Mark earlier offline sessions of this run as synced: this one holds the whole run, and syncing those later would overwrite it."""
        session, others = Path(self._run.dir).parent, directory.absolute() / "wandb"
        for file in others.glob(f"offline-run-*-{self._run.id}/*.wandb") if session.parent == others else ():
            if file.parent != session:
                file.with_suffix(".wandb.synced").touch()

    @property
    def _is_new_row(self) -> bool:
        """Whether W&B lacks the next row."""
        return self._row >= self._num_sent

    def _cell(self, value: Any) -> Any:
        if not isinstance(value, bytes):
            return redacted_values(value)
        from PIL import Image

        return self._wandb.Image(Image.open(io.BytesIO(value)))


def recorded_lines(directory: Path) -> Iterator[tuple[int, dict[str, Any], Sequence[tuple[str, Iterable[Mapping[str, Any]]]]]]:
    """The lines of a run's metrics.jsonl: step, numbers, with the first line of a step its samples by split, read when used."""
    metrics = directory / "metrics.jsonl"
    samples: dict[int, list[SampleFile]] = {}
    for file in list_samples(directory):
        samples.setdefault(file.step, []).append(file)
    for line in read_lines(metrics) if metrics.exists() else []:
        step = line.pop("step")
        line.pop("not_finite", None)
        yield step, line, [(file.split, _read_later(file.path)) for file in samples.pop(step, ())]


def _read_later(path: Path) -> Iterator[Mapping[str, Any]]:
    yield from read_lines(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleTable:
    """Columns, and rows of the same length; a picture is PNG bytes, a missing value None."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


def sample_table(records: Iterable[Mapping[str, Any]]) -> SampleTable:
    """The first `MAX_ROWS` rows of the records of one `samples/<split>_<step>.jsonl`.

    A record of an evaluation is one row, the response to the picture; that of sampled answers one row with their shares; a group of
    rollouts has a row for each rollout, with every reward and the advantage.
    """
    found = list(islice((row for record in records for row in _rows(record)), MAX_ROWS))
    columns = tuple(dict.fromkeys(name for row in found for name in row))
    return SampleTable(columns=columns, rows=[[row.get(name) for name in columns] for row in found])


def _rows(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    prompt = {
        "sample": record["key"]["index"],
        "picture": b64decode(record["image"]) if record.get("image") else None,
        "question": record.get("question"),
        "p*": record["truth"],
    }
    if "verdicts" in record:
        yield prompt | {name.removeprefix("sampled_"): share for name, share in record["grades"].items()}
        return
    if "rollouts" not in record:
        grades = record["grades"]
        accuracies = {"a": grades["end_to_end"], "a_r": grades["reasoning"]}
        yield prompt | _response(record["responses"]["image"], grades, record["faults"]["image"]) | accuracies
        return
    for rollout in record["rollouts"]:
        rewards = {f"reward/{name}": score for name, score in rollout["rewards"].items()}
        scores = {"a": rollout["grades"]["outcome"], **rewards, "advantage": rollout["advantage"]}
        yield prompt | _response(rollout, rollout["grades"], rollout["faults"]) | scores


def _response(response: Mapping[str, Any], grades: Mapping[str, Any], faults: Sequence[str]) -> dict[str, Any]:
    return {
        "stated percept": response["percept"],
        "a_p": grades["perception"],
        "a_p graded": grades["perception_graded"],
        "reasoning": response["reasoning"],
        "answer": response["answer"],
        "faithful": grades["faithful"],
        "faults": ", ".join(faults),
    }
