"""`percasym export`: write the samples of a task as JSON lines and images, which `task=jsonl` and `task=hub` can read.

percasym export task=sudoku --split train_sft --num 200 --out mine --format jsonl
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from percasym.config.schema import ConfigError
from percasym.runs.records import write_lines
from percasym.spans.grammar import Grammar
from percasym.tasks.base import Task, require_rows
from percasym.types import Sample, SampleKey

Format = Literal["jsonl", "hub"]


def export(task: Task, *, split: str, seed: int, num: int, out: Path, format: Format) -> Path:
    """Write the first `num` samples of a split to `out/<split>.jsonl`, with images in `out/images/`. Returns the path of the file.

    Raises ConfigError when the task has no such split, when it has fewer rows (none is repeated), and when the file exists.
    """
    if num < 1:
        raise ConfigError(f"--num must be at least 1, got {num}.")
    path = out / f"{split}.jsonl"
    if path.exists():
        raise ConfigError(f"{path} exists. Give --out another folder, or remove it.")
    columns = {"jsonl": jsonl_columns, "hub": hub_columns}[format]
    try:
        require_rows(task, split, num, "--num")
        samples = [task.sample(SampleKey(task=task.name, split=split, seed=seed, index=index)) for index in range(num)]
    except ValueError as error:
        raise ConfigError(str(error)) from error
    (out / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for index, sample in enumerate(samples):
        assert sample.prompt.image is not None, "a sample of a task has a picture"
        name = f"images/{split}_{index:06d}.png"
        (out / name).write_bytes(sample.prompt.image)
        rows.append({"image": name, "query": sample.prompt.question} | columns(sample))
    write_lines(path, rows)
    return path


def jsonl_columns(sample: Sample) -> dict[str, str]:
    """The columns perception, reasoning and answer."""
    read = Grammar().read(_response(sample).encode())
    assert read.percept is not None and read.answer is not None, f"{sample.prompt.key} has no demonstration in the grammar"
    return {"perception": read.percept, "reasoning": read.reasoning, "answer": read.answer}


def hub_columns(sample: Sample) -> dict[str, str]:
    """The columns ground_truth (p* and answer, tagged) and response (empty outside train_sft), as in the paper's released sets."""
    truth = Grammar().demonstrate(sample.truth, "", sample.solution)
    response = _response(sample) if sample.prompt.key.split == "train_sft" else ""
    return {"ground_truth": truth.perception + truth.reasoning, "response": response}


def _response(sample: Sample) -> str:
    return sample.demonstration.perception + sample.demonstration.reasoning
