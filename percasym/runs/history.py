"""What a run has said so far: written into each checkpoint, and taken back to there when the run resumes.

The DONE of a checkpoint names the run for its tracker and says how long metrics.jsonl was, so a run that goes on from
it continues the same curve, also in another directory, and says nothing twice.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from percasym.runs.checkpoint import DONE
from percasym.runs.records import read_lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """How far a run was when a checkpoint was taken."""

    step: int
    """Finished optimizer steps; -1 before the first evaluation."""
    num_bytes: int = 0
    """Length of metrics.jsonl."""
    num_lines: int = 0
    """Its lines: rows of the tracker."""
    identity: str | None = None
    """The run's name for its tracker; None where a checkpoint does not say."""

    def note(self) -> str:
        """The text of DONE."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, checkpoint: Path, step: int) -> Said:
        """What the DONE of a checkpoint says; older checkpoints hold the number of bytes alone."""
        kept = json.loads((checkpoint / DONE).read_text(encoding="utf-8"))
        return cls(step=step, num_bytes=kept) if isinstance(kept, int) else cls(**kept)


def take_back(metrics: Path, said: Said) -> int:
    """Cut metrics.jsonl after the last line that the checkpoint knew of; the number of lines that the run has said in all.

    A checkpoint that was copied into the directory of another run knows of more lines than lie there, or of none beyond its step.
    """
    length = num_lines = 0
    for line in metrics.read_bytes().splitlines(keepends=True) if metrics.exists() else ():
        if length + len(line) > said.num_bytes or not line.endswith(b"\n") or json.loads(line)["step"] > said.step:
            break
        length, num_lines = length + len(line), num_lines + 1
    if settled_bytes(metrics) > length:
        os.truncate(metrics, length)
    return max(num_lines, said.num_lines)


def forget_samples(directory: Path, *, beyond: int) -> None:
    """Delete the samples of steps `beyond` a checkpoint, which will be made again."""
    for samples in directory.glob("samples/*_*.jsonl"):
        if int(samples.stem.rpartition("_")[2]) > beyond:
            samples.unlink()


def values_by_step(metrics: Path, name: str) -> dict[int, float]:
    """What metrics.jsonl says of one number, by step; nothing where it was not finite."""
    lines = read_lines(metrics) if metrics.exists() else []
    return {line["step"]: line[name] for line in lines if line.get(name) is not None}


def settled_bytes(path: Path) -> int:
    """Length of a file, all of it safely on the disk; 0 when there is none."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size
