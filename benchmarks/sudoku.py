"""9x9 Sudokus with exactly one solution: ours beside reasoning-gym's, at the same number of givens.

    pip install "percasym[bench]"        (make bench does)
    python benchmarks/sudoku.py          40 pairs of 10 puzzles for each number of givens

Blocks alternate between the two and are timed by the processor, and no puzzle is drawn twice. Reasoning-gym stops where no
more cells can go, and may keep more givens than asked; ours has exactly as many. A ratio above 1 means that ours is faster.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import mean, median

from reasoning_gym.games.sudoku import SudokuConfig, SudokuDataset

from percasym.tasks.sudoku.puzzle import puzzle_of
from percasym.types import SampleKey

CELLS = 81


def ours(givens: int) -> Callable[[int], int]:
    """Draws puzzle number i and returns its givens."""

    def draw(index: int) -> int:
        key = SampleKey(task="sudoku", split="train_sft", seed=0, index=index)
        percept = puzzle_of(key, size=9, givens=(givens, givens), techniques="any")
        return sum(digit not in "0\n" for digit in percept)

    return draw


def theirs(givens: int, size: int) -> Callable[[int], int]:
    puzzles = SudokuDataset(SudokuConfig(min_empty=CELLS - givens, max_empty=CELLS - givens, seed=0, size=size))
    return lambda index: sum(digit != 0 for row in puzzles[index]["metadata"]["puzzle"] for digit in row)


def timed(draw: Callable[[int], int], first: int, num: int) -> tuple[float, list[int]]:
    """Processor seconds for puzzles `first` to `first + num` - 1, and their givens."""
    began = time.process_time()
    givens = [draw(index) for index in range(first, first + num)]
    return time.process_time() - began, givens


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--pairs", type=int, default=40)
    arguments.add_argument("--puzzles", type=int, default=10, help="puzzles in a block")
    arguments.add_argument("--givens", type=int, nargs="+", default=[32, 36, 45])
    asked = arguments.parse_args()
    for givens in asked.givens:
        arms = {"ours": ours(givens), "reasoning-gym": theirs(givens, asked.pairs * asked.puzzles)}
        seconds: dict[str, list[float]] = {name: [] for name in arms}
        kept: dict[str, list[int]] = {name: [] for name in arms}
        for draw in arms.values():
            draw(0)  # Tables are built at first use.
        for pair in range(asked.pairs):
            for name, draw in arms.items():
                spent, found = timed(draw, pair * asked.puzzles, asked.puzzles)
                seconds[name].append(spent)
                kept[name] += found
        ratios = sorted(b / a for a, b in zip(*seconds.values(), strict=True))
        rates = {name: asked.puzzles / median(spent) for name, spent in seconds.items()}
        said = ", ".join(f"{name} {rates[name]:.0f} a second with {mean(kept[name]):.1f} givens" for name in arms)
        print(f"{givens} givens: {said}, ratio {median(ratios):.1f} (blocks {ratios[0]:.1f} to {ratios[-1]:.1f})", flush=True)


if __name__ == "__main__":
    main()
