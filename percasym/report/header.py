"""What a report is about: the question of the study, its model, task, steps, seeds and date, from the run directories.

The question and the prediction stand at the head of conf/experiment/<study>.yaml, where they were written before the runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from percasym.report.comparison import Comparison
from percasym.report.load import RunRecord
from percasym.report.study import Study, seed_of
from percasym.report.words import counted, sample_count
from percasym.runs.records import option_name

NAMES = {
    "internvl35": "InternVL3.5", "qwen3vl": "Qwen3-VL", "sudoku": "Sudoku", "graph_coloring": "Graph Coloring", "sft": "SFT", "rl": "GRPO",
    "jsonl": "rows", "hub": "rows", "mm_helix": "MM-HELIX", "vgrp": "VGRP-Bench",
}  # fmt: skip
"""Options as a title writes them."""
EXPERIMENTS = Path(__file__).resolve().parents[1] / "conf" / "experiment"
"""The yaml of the studies of this checkout."""
QUESTION = "What did post-training do to perception and to reasoning?"
"""Of a study without a question of its own."""
_STATED = re.compile(r"^# (Question|Prediction): (.*(?:\n#(?! [A-Z]\w*: ).*)*)", flags=re.MULTILINE)
"""A statement goes on over lines of comments until the next one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The head of a report."""

    title: str
    """One line: model, task, paradigm and the name of the study."""
    question: str
    prediction: str
    """Empty where none was written down."""
    facts: Sequence[tuple[str, str]]
    """Term and text."""


def header(study: Study, comparisons: Sequence[Comparison]) -> Header:
    """The head of a study's report."""
    stated = stated_in(EXPERIMENTS / f"{study.name}.yaml")
    finished = [run for run in study.runs if run.summary is not None] or list(study.runs)
    facts = list(_facts(finished, comparisons))
    about = dict(facts)
    title = " · ".join(about[term] for term in ("model", "task", "training") if term in about) + f" · {study.name}"
    return Header(title=title, question=stated.get("Question", QUESTION), prediction=stated.get("Prediction", ""), facts=facts)


def stated_in(file: Path) -> Mapping[str, str]:
    """Question and prediction in the comments of an experiment's yaml; empty without them."""
    if not re.fullmatch(r"[\w-]+\.yaml", file.name) or not file.is_file():
        return {}
    found = _STATED.findall(file.read_text(encoding="utf-8"))
    return {name: " ".join(line.lstrip("# ") for line in text.splitlines()) for name, text in found}


def _facts(runs: Sequence[RunRecord], comparisons: Sequence[Comparison]) -> Iterable[tuple[str, str]]:
    configs = [run.config for run in runs]
    yield from _listed("model", (_model(config) for config in configs))
    yield from _listed("task", (_task(config) for config in configs))
    yield from _listed("training", (_training(config) for config in configs))
    yield from _listed("balance", (run.cell for run in runs), lambda cells: counted(len(cells), "cell"))
    yield from _listed("seeds", sorted({str(seed_of(run)) for run in runs}, key=int))
    counts = sorted({count for one in comparisons for count in one.num_samples})
    if counts:
        yield "test samples", sample_count(counts)
    dates = sorted(date for run in runs if (date := _finished(run.meta)) is not None)
    if dates:
        first, last = (f"{date:%Y-%m-%d}" for date in (dates[0], dates[-1]))
        yield "finished", first if first == last else f"{first} to {last}"
    yield from _listed("commit", (_commit(run.meta) for run in runs))


def _listed(term: str, texts: Iterable[str], write: Any = ", ".join) -> Iterable[tuple[str, str]]:
    different = [text for text in dict.fromkeys(texts) if text]
    if different:
        yield term, write(different)


def _named(config: Mapping[str, Any], group: str) -> str:
    name = option_name(config, group) or ""
    return NAMES.get(name, name)


def _task(config: Mapping[str, Any]) -> str:
    """The task; of collected data the name of the file or folder.

    >>> _task({"task": {"_target_": "percasym.tasks.given.task.Given", "path": "mine/train.jsonl"}})
    'rows of train.jsonl'
    """
    name, path = _named(config, "task"), (config.get("task") or {}).get("path")
    return f"{name} of {Path(str(path)).name}" if path else name


def _model(config: Mapping[str, Any]) -> str:
    model = config.get("model") or {}
    size = Path(str(model["path"])).name if model.get("path") else str(model.get("size") or "")
    return " ".join(part for part in (_named(config, "model"), size) if part)


def _training(config: Mapping[str, Any]) -> str:
    paradigm = config.get("paradigm") or {}
    steps = f"{counted(int(paradigm['steps']), 'step')} of {paradigm.get('batch_size', '?')}" if "steps" in paradigm else ""
    return ", ".join(part for part in (_named(config, "paradigm"), steps) if part)


def _finished(meta: Mapping[str, Any]) -> datetime | None:
    try:
        return datetime.fromisoformat(str(meta["started"])) + timedelta(seconds=float(meta["seconds"]))
    except (LookupError, ValueError, OverflowError):
        return None


def _commit(meta: Mapping[str, Any]) -> str:
    commit = meta.get("git")
    return f"{str(commit)[:7]}{' with changes' if meta.get('dirty') else ''}" if commit else ""
