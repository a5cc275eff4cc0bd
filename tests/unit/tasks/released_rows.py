"""Write data in the forms that the paper's released sets plausibly have; all rows are made here.

    python tests/unit/tasks/released_rows.py FOLDER --puzzle sudoku --truth unsolved --rows 20

`--truth unsolved`: ground_truth is the puzzle as JSON (0 for an empty cell; nodes and edges). `--truth solution`: it is the solution.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from percasym.tasks.canvas import Look
from percasym.tasks.graph_coloring.graph import optimal_coloring, read_graph
from percasym.tasks.graph_coloring.task import GraphColoring
from percasym.tasks.sudoku.task import Sudoku
from percasym.types import SampleKey

STEPS = 200
"""Sentences of a response: about 10,000 characters, as 3,000 tokens of reasoning have."""
COLORS = ("red", "blue", "green", "yellow")
QUERIES = {
    "sudoku": (
        'Solve the Sudoku in the picture. First transcribe the grid in a code block, one row a line, with "-" for empty cells. '
        "Then reason step by step, and give the full grid in a code block."
    ),
    "graph_coloring": "Color the graph in the picture with as few colors as possible. List its edges first, then give each node a color.",
}


def sudoku_row(rng: Random, index: int, truth: str, num: int = 1) -> dict[str, Any]:
    """One of `num` different 9x9 puzzles; the percept has "-" in the response and 0 in ground_truth."""
    key = SampleKey(task="sudoku", split="test", seed=7, index=index % num)
    task = Sudoku(size=9, givens=(40, 50), techniques="any", look=Look(image_px=96))
    percept = task.truth(key)
    solution = task.solve(percept)
    assert solution
    shown = "\n".join(" ".join(line) for line in percept.replace("0", "-").splitlines())
    full = "\n".join(" ".join(line) for line in solution.splitlines())
    steps = " ".join(f"Row {rng.randint(1, 9)} lacks {rng.randint(1, 9)}, so we place it." for _ in range(STEPS))
    chosen = percept if truth == "unsolved" else solution
    return {
        "query": QUERIES["sudoku"],
        "ground_truth": json.dumps([[int(digit) for digit in line] for line in chosen.splitlines()]),
        "response": f"The grid is:\n```\n{shown}\n```\nNow I solve it. {steps} The solution is:\n```\n{full}\n```\n",
    }


def graph_row(rng: Random, index: int, truth: str, num: int = 1) -> dict[str, Any]:
    """One of `num` graphs on numbered nodes, as JSON in ground_truth and as pairs in the response."""
    key = SampleKey(task="graph_coloring", split="test", seed=7, index=index % num)
    graph = read_graph(GraphColoring(nodes=(6, 8), max_steps=10_000, look=Look(image_px=192)).truth(key))
    assert graph
    colors = optimal_coloring(graph)
    names = [str(node + 1) for node in range(graph.num_nodes)]
    edges = [[names[i], names[j]] for i, j in graph.edges]
    rng.shuffle(edges)
    colored = {name: COLORS[color - 1] for name, color in zip(names, colors, strict=True)}
    steps = " ".join(f"Node {rng.choice(names)} has a neighbor in {rng.choice(COLORS)}." for _ in range(STEPS))
    return {
        "query": QUERIES["graph_coloring"],
        "ground_truth": {"nodes": names, "edges": edges} if truth == "unsolved" else colored,
        "response": f"Edges:\n```\n{', '.join(f'({a}, {b})' for a, b in edges)}\n```\n{steps}\nSo the coloring is:\n"
        + "\n".join(f"- Node {name}: {color}" for name, color in colored.items()),
    }


def picture(rng: Random, size: int = 32) -> bytes:
    """A PNG of random grey."""
    out = io.BytesIO()
    Image.new("L", (size, size), rng.randrange(256)).save(out, "PNG")
    return out.getvalue()


MAKERS = {"sudoku": sudoku_row, "graph_coloring": graph_row}


def encoded(rng: Random, size: int = 96) -> str:
    """A PNG of noise as base64: 12 kB."""
    out = io.BytesIO()
    Image.frombytes("L", (size, size), rng.randbytes(size * size)).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def write_rows(
    folder: Path, puzzle: str, truth: str, rows: Mapping[str, int], *, num: int = 50, pictures: bool = True, inline: bool = False
) -> Path:
    """Write <split>.jsonl with `rows` of each split; responses outside train_sft are empty, as in the released sets.

    With `inline` the pictures are in the rows, as base64.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = Random(3)
    index = 0
    for split, number in rows.items():
        with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            for _ in range(number):
                row = MAKERS[puzzle](rng, index, truth, num)
                name = encoded(rng) if inline else f"{index if pictures else 0}.png"
                if not inline and (pictures or index == 0):
                    (folder / name).write_bytes(picture(rng))
                file.write(json.dumps({"image": name, **row, **({} if split == "train_sft" or truth == "solution" else {"response": ""})}))
                file.write("\n")
                index += 1
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--puzzle", choices=tuple(MAKERS), default="sudoku")
    parser.add_argument("--truth", choices=("unsolved", "solution"), default="unsolved")
    parser.add_argument("--rows", type=int, default=20)
    given = parser.parse_args()
    write_rows(given.folder, given.puzzle, given.truth, {"train_sft": given.rows, "train_rl": given.rows, "test": given.rows})
