"""Write items in the forms of MM-HELIX and VGRP-Bench; all rows and pictures are made here, none is theirs.

    python tests/unit/tasks/outside_rows.py FOLDER                     # FOLDER/MM-HELIX.tsv and its pictures, and FOLDER/vgrp/

`helix_rows` has one item of each question that is graded and one of a kind that is not read.
"""

from __future__ import annotations

import csv
import json
import sys
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from percasym.tasks.canvas import Look
from percasym.tasks.sudoku.task import Sudoku
from percasym.types import SampleKey

NINE = Sudoku(size=9, givens=(40, 45), techniques="any", look=Look(image_px=96))
FOUR = Sudoku(size=4, givens=(8, 10), look=Look(image_px=64))
RING = {"0": [1, 3], "1": [0, 2], "2": [1, 3], "3": [0, 2]}
STAR = {"0": [1, 2, 3], "1": [0], "2": [0], "3": [0]}
APART = {"0": [1], "1": [0], "2": [3], "3": [2], "4": []}
FORWARD = {"0": [1, 2], "1": [3], "2": [3], "3": []}
IN_WORDS = "answer with a list such as [0,1,2], or 'No'."


def key(task: str, index: int) -> SampleKey:
    return SampleKey(task=task, split="test", seed=7, index=index)


def picture(index: int = 0) -> bytes:
    """A picture of a grid that stands for any."""
    return FOUR.draw(FOUR.truth(key("sudoku", index)), key("sudoku", index))


def helix_rows() -> list[dict[str, Any]]:
    """Rows with the columns of the data set of MM-HELIX, `images` left out."""
    percept = NINE.truth(key("sudoku", 0))
    solution = NINE.solve(percept)
    assert solution is not None
    state = "\n".join(" ".join(cell if cell != "0" else "." for cell in line) for line in percept.splitlines())
    sudoku = {
        "category": "sudoku",
        "question": "Solve the 9x9 Sudoku in the image; output 81 integers, row by row.",
        "question_text": "Solve the 9x9 Sudoku; output 81 integers, row by row. Empty cells are dots:\n\n" + state,
        "answer": " ".join("".join(solution.split())),
        "initial_state": state,
        "metric_info": {"score_function": "sudoku_evaluator"},
    }

    def graph(category: str, near: Mapping[str, Sequence[int]], answer: str, question: str = "", state: Any = None) -> dict[str, Any]:
        words = "\n".join(f"{node}: {list(others)}" for node, others in near.items())
        asked = question or f"Is there a {category.replace('_', ' ')} in the graph?"
        return {
            "category": category,
            "question": f"{asked} Look at the image and {IN_WORDS}",
            "question_text": f"{asked} From the adjacency list {IN_WORDS}\n{words}",
            "answer": answer,
            "initial_state": json.dumps(state or near) if category != "eulerian_path" else str(dict(near)),  # Both notations occur.
            "metric_info": {"score_function": f"{category}_evaluator"},
        }

    ends = {"start_node": 0, "target_node": 2}
    rows = [
        sudoku,
        graph("hamiltonian_path", RING, "[1, 2, 3, 0]", "Is there a Hamiltonian path starting from vertex 1 (marked in red)?"),
        graph("hamiltonian_path", STAR, "No"),
        graph("hamiltonian_cycle", RING, "[0, 1, 2, 3]"),
        graph("eulerian_path", STAR, "No"),
        graph("eulerian_cycle", RING, "[0, 1, 2, 3, 0]"),
        graph("topological_sort", FORWARD, "[0, 2, 1, 3]"),
        graph("connectivity_test", APART, "3", "Find a path from node 0 to node 2, or the number of components.",
              {"adjacency_list": APART, **ends}),
        {"category": "max_flow", "question": "How much?", "question_text": "How much?", "answer": "7",
         "metric_info": {"score_function": "simple_str_match"}},
    ]  # fmt: skip
    return [{"id": number, "difficulty": 1, **row, "metric_info": json.dumps(row["metric_info"])} for number, row in enumerate(rows)]


def write_helix_tsv(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """MM-HELIX.tsv as VLMEvalKit writes it: id renamed to index, pictures saved below images/MM-HELIX, their paths as a Python list."""
    path = folder / "MM-HELIX.tsv"
    for number, row in enumerate(rows):
        file = folder / "images" / "MM-HELIX" / row["category"] / f"{number}_0.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(number))
    columns = ["index", "category", "question", "question_text", "answer", "difficulty", "metric_info", "initial_state", "image_path"]
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, columns, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        for number, row in enumerate(rows):
            file = folder / "images" / "MM-HELIX" / row["category"] / f"{number}_0.png"
            own = {"index": row["id"], "image_path": str([str(file)])}
            writer.writerow({name: own.get(name, row.get(name, "")) for name in columns})
    return path


def write_helix_annotations(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """<category>/annotations.json as the generators write them, with question_language in place of question_text."""
    for category in {row["category"] for row in rows}:
        own = folder / category
        (own / "images").mkdir(parents=True, exist_ok=True)
        entries = []
        for number, row in enumerate(rows):
            if row["category"] == category:
                (own / "images" / f"{number}.png").write_bytes(picture(number))
                state = row.get("initial_state")
                words: Any = row["question_text"]
                entries.append({
                    "index": f"{category}_{number}", "category": category, "image": f"images/{number}.png", "question": row["question"],
                    "question_language": [words] if category == "topological_sort" else words, "answer": row["answer"],
                    "initial_state": state if category == "sudoku" or state is None or "'" in state else json.loads(state),
                })  # fmt: skip
        (own / "annotations.json").write_text(json.dumps(entries, indent=2))
    return folder


def write_helix_parquet(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """test-00000-of-00001.parquet as `datasets` writes it: `images` is a list of {bytes, path}."""
    import pyarrow as pa
    from pyarrow import parquet

    path = folder / "test-00000-of-00001.parquet"
    own = [{**row, "images": [{"bytes": picture(number), "path": f"{number}.png"}]} for number, row in enumerate(rows)]
    columns = list(dict.fromkeys(name for row in own for name in row))
    parquet.write_table(pa.Table.from_pylist([{name: row.get(name) for name in columns} for row in own]), path)
    return path


def vgrp_puzzle(index: int) -> dict[str, Any]:
    """A puzzle as VGRP-Bench holds it, a Python dictionary as text, beside its prompt."""
    grid = [[int(digit) for digit in line] for line in FOUR.truth(key("sudoku", index)).splitlines()]
    prompt = 'You are a Sudoku player. Give the state ("*" for empty) as JSON with perception, think and answer.'
    return {"prompt": prompt, "initialization": str({"size": 4, "initialization": grid})}


def write_vgrp(folder: Path, num: int = 2) -> Path:
    """sudoku_4x4/metadata.jsonl with pictures beside it."""
    own = folder / "sudoku_4x4"
    own.mkdir(parents=True)
    for index in range(num):
        (own / f"{index}.png").write_bytes(picture(index))
    lines = [json.dumps({"file_name": f"{index}.png", **vgrp_puzzle(index)}) + "\n" for index in range(num)]
    (own / "metadata.jsonl").write_text("".join(lines))
    return own / "metadata.jsonl"


def write_vgrp_tsv(folder: Path, num: int = 2) -> Path:
    """The TSV of VLMEvalKit: picture as base64, the puzzle as `states`, and other puzzles between."""
    path = folder / "VGRPBench.tsv"
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, delimiter="\t", lineterminator="\n")
        writer.writerow(["index", "image", "question", "category", "states"])
        for index in range(num):
            puzzle = vgrp_puzzle(index)
            for category in ("sudoku_4x4", "coloredsudoku_4x4"):
                encoded = b64encode(picture(index)).decode()
                writer.writerow([index, encoded, puzzle["prompt"], category, puzzle["initialization"]])
    return path


if __name__ == "__main__":
    to = Path(sys.argv[1])
    to.mkdir(parents=True, exist_ok=True)
    print(write_helix_tsv(to, helix_rows()), write_vgrp(to / "vgrp"))
