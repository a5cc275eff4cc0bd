"""`percasym gallery`: a page of samples for each task, from the easiest setting to the paper's size.

percasym gallery                                   # both tasks into docs/gallery
percasym gallery sudoku --samples 5 --out /tmp/look
percasym gallery task=clock plugins=[clocks] hydra.searchpath=[examples/plugin/conf]        # any generated task, as configured
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any

from percasym.cli.arguments import Arguments, conf_folder
from percasym.report.gallery import Section, gallery
from percasym.tasks.base import SPLITS, Task
from percasym.tasks.canvas import FONTS, Look
from percasym.tasks.graph_coloring.task import GraphColoring
from percasym.tasks.sudoku.task import Sudoku
from percasym.types import SampleKey


def varied(image_px: int) -> Look:
    """A look that varies everything: fonts, sizes, grey levels, noise, jitter."""
    return Look(image_px=image_px, fonts=tuple(FONTS), glyph=(0.55, 0.8), contrast=(0.35, 1.0), dark_frac=0.5, noise=0.06, jitter=0.08)


SETTINGS: dict[str, tuple[tuple[str, Task], ...]] = {
    "sudoku": (
        ("4x4, plain and short", Sudoku(verbosity=0)),
        ("4x4, varied and verbose", Sudoku(verbosity=3, look=varied(64))),
        ("6x6", Sudoku(size=6, givens=(16, 20), look=varied(96))),
        ("9x9, hidden singles", Sudoku(size=9, givens=(30, 36), techniques="hidden", look=varied(216))),
        ("9x9, full question", Sudoku(size=9, givens=(30, 36), verbosity=4, question="full", look=Look(image_px=288))),
    ),
    "graph_coloring": (
        ("4 nodes, plain and short", GraphColoring(nodes=(4, 4), verbosity=0)),
        ("5 nodes, varied and verbose", GraphColoring(nodes=(5, 5), verbosity=3, look=varied(96))),
        ("7 nodes", GraphColoring(nodes=(7, 7), look=varied(160))),
        ("8 to 12 nodes, full question", GraphColoring(nodes=(8, 12), verbosity=4, question="full", look=Look(image_px=288))),
    ),
}
"""Task -> title and settings of each section, from easy to hard."""


def parser() -> Arguments:
    """The arguments of `percasym gallery`."""
    made = Arguments(prog="percasym gallery", description="Draw a page of samples for each task.")
    made.add_argument("tasks", nargs="*", metavar="TASK", help=f"{' or '.join(SETTINGS)}, or KEY=VALUE as for train.py; without one, all")
    made.add_argument("--samples", type=int, default=3, help="samples of each difficulty (default 3)")
    made.add_argument("--split", default="train_sft", choices=SPLITS, help="split to draw from (default train_sft)")
    made.add_argument("--seed", type=int, default=0, help="seed of the samples (default 0)")
    made.add_argument("--out", type=Path, default=Path("docs/gallery"), help="folder to write into (default docs/gallery)")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Write one HTML file for each task and print its path; returns the exit code. Raises ConfigError for unknown words."""
    arguments = parser()
    given = arguments.parse_args(argv)
    configured = any("=" in word for word in given.tasks)
    settings = as_configured(given.tasks) if configured else {name: SETTINGS[name] for name in given.tasks or SETTINGS if name in SETTINGS}
    if unknown := [name for name in given.tasks if name not in settings and not configured]:
        arguments.error(f"no task named {unknown[0]!r}; the tasks are {', '.join(SETTINGS)}")
    if given.samples < 1:
        arguments.error(f"--samples must be at least 1, got {given.samples}")
    if given.seed < 0:
        arguments.error(f"--seed must be at least 0, got {given.seed}")
    given.out.mkdir(parents=True, exist_ok=True)
    for name, titled in settings.items():
        path, title = given.out / f"{name}.html", name.replace("_", " ").capitalize()
        path.write_text(gallery(title, sections(name, titled, given.split, given.seed, given.samples)), encoding="utf-8")
        print(path)
    return 0


def as_configured(words: Sequence[str]) -> dict[str, tuple[tuple[str, Task], ...]]:
    """The task that these words of train.py configure, as the one section of its page. Raises ConfigError."""
    from percasym.config.resolve import composed

    task = composed(words, conf_folder()).task
    return {task.name: (("as configured", task),)}


def sections(name: str, titled: Sequence[tuple[str, Task]], split: str, seed: int, num_samples: int) -> Iterator[Section]:
    """The sections of a task's page."""
    for title, task in titled:
        keys = [SampleKey(task=name, split=split, seed=seed, index=index) for index in range(num_samples)]
        yield Section(title=title, note=f"{type(task).__name__}({differences(task)})", samples=[task.sample(key) for key in keys])


def differences(settings: Any, prefix: str = "") -> str:
    """How a dataclass differs from its defaults.

    >>> differences(Sudoku(verbosity=3, look=Look(image_px=96, glyph=(0.5, 0.8))))
    'verbosity=3, look.image_px=96, look.glyph=(0.5, 0.8)'
    """
    parts = []
    for option in fields(settings):
        value = getattr(settings, option.name)
        if value == _default(option):
            continue
        if is_dataclass(value):
            parts.append(differences(value, f"{prefix}{option.name}."))
        else:
            parts.append(f"{prefix}{option.name}={value!r}")
    return ", ".join(parts)


def _default(option: Field[Any]) -> Any:
    return option.default if option.default_factory is MISSING else option.default_factory()
