"""`percasym export`: write the samples of a task as JSON lines and images, for `task=jsonl`, `task=hub` and other trainers.

percasym export task=sudoku --split train_sft --num 200 --out mine --format jsonl|hub|messages
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from percasym.config.files import read_json
from percasym.config.schema import ConfigError
from percasym.runs.records import write_lines
from percasym.spans.grammar import Grammar
from percasym.tasks.base import Task, require_rows, samples_of
from percasym.tasks.given.messages import IMAGE_TAG
from percasym.types import Sample

Format = Literal["jsonl", "hub", "messages"]
DATASET_INFO = "dataset_info.json"
"""LLaMA-Factory's register of data sets, in its `dataset_dir`."""


def export(task: Task, *, split: str, seed: int, num: int, out: Path, format: Format) -> Path:
    """Write the first `num` samples of a split to `out/<split>.jsonl`, with images in `out/images/`. Returns the path of the file.

    Raises ConfigError when the task has no such split, when it has fewer rows (none is repeated), when the file exists, and for a
    `dataset_info.json` that cannot be read.
    """
    if num < 1:
        raise ConfigError(f"--num must be at least 1, got {num}.")
    path = out / f"{split}.jsonl"
    if path.exists():
        raise ConfigError(f"{path} exists. Give --out another folder, or remove it.")
    columns: Callable[[Sample, str], dict[str, Any]] = {"jsonl": jsonl_row, "hub": hub_row, "messages": messages_row}[format]
    try:
        require_rows(task, split, num, "--num")
        samples = samples_of(task, split, seed, range(num))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    (out / "images").mkdir(parents=True, exist_ok=True)
    if format == "messages":
        register(out, path.name)
    rows = []
    for index, sample in enumerate(samples):
        assert sample.prompt.image is not None, "a sample of a task has a picture"
        name = f"images/{split}_{index:06d}.png"
        (out / name).write_bytes(sample.prompt.image)
        rows.append(columns(sample, name))
    write_lines(path, rows)
    return path


def jsonl_row(sample: Sample, image: str) -> dict[str, Any]:
    """The columns image, query, perception, reasoning and answer."""
    read = Grammar().read(_response(sample).encode())
    assert read.percept is not None and read.answer is not None, f"{sample.prompt.key} has no demonstration in the grammar"
    parts = {"perception": read.percept, "reasoning": read.reasoning, "answer": read.answer}
    return {"image": image, "query": sample.prompt.question, **parts}


def hub_row(sample: Sample, image: str) -> dict[str, Any]:
    """The columns of the paper's released sets: ground_truth is p* and answer, tagged; response is empty outside train_sft."""
    truth = Grammar().demonstrate(sample.truth, "", sample.solution)
    response = _response(sample) if sample.prompt.key.split == "train_sft" else ""
    return {"image": image, "query": sample.prompt.question, "ground_truth": truth.perception + truth.reasoning, "response": response}


def messages_row(sample: Sample, image: str) -> dict[str, Any]:
    """One turn as LLaMA-Factory and ms-swift read it: `messages` with roles user and assistant, and `images` relative to the file."""
    asked, response = f"{IMAGE_TAG}{sample.prompt.question}", _response(sample)
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": response}], "images": [image]}


def register(folder: Path, name: str) -> None:
    """Enter a file of messages into `dataset_info.json` of its folder, so that LLaMA-Factory finds it (`--dataset_dir`).

    Raises ConfigError for a dataset_info.json that is no JSON object.
    """
    file = folder / DATASET_INFO
    try:
        known = read_json(file) if file.exists() else {}
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if not isinstance(known, dict):
        raise ConfigError(f"{file} is no JSON object. Move it, or give --out another folder.")
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant", "system_tag": "system"}
    entry = {"file_name": name, "formatting": "sharegpt", "columns": {"messages": "messages", "images": "images"}, "tags": tags}
    file.write_text(json.dumps({**known, f"percasym_{Path(name).stem}": entry}, indent=2) + "\n", encoding="utf-8")


def _response(sample: Sample) -> str:
    return sample.demonstration.perception + sample.demonstration.reasoning
