"""Pretrain a tiny checkpoint that travels with the package, from nothing but the `base` split.

It learns to perceive easy pictures and to reason about short puzzles, so that it solves each task partly:

    make base FAMILY=internvl35 SIZE=tiny      (or: python -m percasym.app.pretrain --family internvl35 --size tiny; resumable, seed 0)

Perception is learned mostly from pictures with the response cut after the perception span, reasoning mostly from p* given as text, so
neither depends on the other; a few whole responses to pictures combine them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from percasym.balance.fixed import Fixed
from percasym.config.paradigm import Sft
from percasym.config.settings import TorchSettings
from percasym.engine.torch import torch_engine
from percasym.models import locate
from percasym.models.architecture import write_blank
from percasym.models.base import Batch, Family, Row
from percasym.models.internvl35 import InternVL35
from percasym.models.qwen3vl import Qwen3VL
from percasym.runs.rundir import RunDirectory
from percasym.tasks.base import Task, prompt_as_text
from percasym.tasks.canvas import Look
from percasym.tasks.graph_coloring.task import GraphColoring
from percasym.tasks.sudoku.task import Sudoku
from percasym.training.progress import TrainingState
from percasym.training.sft import train
from percasym.types import Sample, SampleKey, Span

FAMILIES: dict[str, Callable[..., Family]] = {"qwen3vl": Qwen3VL, "internvl35": InternVL35}

EASY = Look(image_px=96, contrast=(0.6, 1.0), noise=0.03, jitter=0.05)

TASKS: dict[str, tuple[Sudoku | GraphColoring, ...]] = {
    "tiny": (
        Sudoku(
            size=4,
            givens=(9, 12),
            verbosity=2,
            restate=True,
            variety_frac=0.5,
            look=replace(EASY, image_px=64, fonts=("bold", "sans"), glyph=(0.6, 0.8)),
        ),
        GraphColoring(nodes=(4, 5), verbosity=3, variety_frac=0.5, look=EASY),
    ),
    "tiny-graphs": (
        GraphColoring(
            nodes=(4, 7),
            density=(0.4, 0.7),
            verbosity=2,
            variety_frac=0.5,
            look=replace(EASY, fonts=("bold", "sans"), contrast=(0.5, 1.0), noise=0.045, jitter=0.075),
        ),
    ),
}
"""What each packaged size learns. Pictures are easier than those of `scale=tiny` and reasoning is shorter: the checks that end a
demonstration there are new to the base model, as long chains of thought are to a real base model before post-training. `tiny` has
seen 155 graphs of four and five nodes in all; `tiny-graphs` spends its capacity on graphs of up to seven nodes, which are too many to learn
by heart."""

NUM_CUT, NUM_TEXTS, NUM_WHOLE = 16, 10, 4
"""Rows of each task in one step: pictures cut after the perception, p* as text, whole responses to pictures."""

NUM_TOGETHER = 15
"""Rows of one forward, of similar length."""

SETTINGS = Sft(
    steps=1200, batch_size=1, micro_batch_size=1, lr=1.5e-3, warmup_frac=0.05, final_lr_frac=0.1, weight_decay=0.01, save_every=50
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """The batches of each pretraining step, over all tasks."""

    family: Family
    tasks: tuple[Task, ...]
    seed: int

    def picture(self, sample: Sample) -> Row:
        """A picture and its perception span, without the rest of the response."""
        row = self.family.row(sample)
        stop = len(row.labels) - row.labels[::-1].index(Span.perception)
        return replace(row, ids=row.ids[:stop], labels=row.labels[:stop])

    def text(self, sample: Sample) -> Row:
        """p* as text and the whole response."""
        return self.family.row(replace(sample, prompt=prompt_as_text(sample)))

    def window(self, step: int) -> list[Batch]:
        """The batches of one step, rows of similar length together: a padding token costs as much as any other."""
        rows = []
        for task in self.tasks:
            num = NUM_CUT + NUM_TEXTS + NUM_WHOLE
            samples = [task.sample(key(task, self.seed, step * num + i)) for i in range(num)]
            cut, texts, whole = samples[:NUM_CUT], samples[NUM_CUT:-NUM_WHOLE], samples[-NUM_WHOLE:]
            rows += [*map(self.picture, cut), *map(self.text, texts), *map(self.family.row, whole)]
        rows.sort(key=lambda row: len(row.ids))
        return [self.family.collate(rows[at : at + NUM_TOGETHER]) for at in range(0, len(rows), NUM_TOGETHER)]

    def windows(self, start: int, stop: int) -> Iterator[Sequence[Batch]]:
        """Batches of steps `start` to `stop` - 1, made on demand: on two cores a background thread would slow down the step."""
        return (self.window(step) for step in range(start, stop))


def key(task: Task, seed: int, index: int) -> SampleKey:
    """A key of the base split."""
    return SampleKey(task=task.name, split="base", seed=seed, index=index)


def corpus(tasks: Sequence[Sudoku | GraphColoring], seed: int, num_samples: int = 1000) -> Iterator[str]:
    """Training text of the tokenizer: questions and demonstrations at every verbosity."""
    for task in tasks:
        for index in range(num_samples):
            varied = replace(task, verbosity=index % 5, variety_frac=1.0)
            sample = varied.sample(key(varied, seed, index))
            yield f"user\n{sample.prompt.question}\nassistant\n"
            yield sample.demonstration.perception
            yield sample.demonstration.reasoning


def build(directory: Path, *, work: Path, settings: Sft, seed: int, family_name: str = "qwen3vl", size: str = "tiny") -> None:
    """Pretrain in the run directory `work`, resuming a run that is there, and write the finished checkpoint to `directory`."""
    tasks = TASKS[size]
    config = {"seed": seed, "settings": asdict(settings), "tasks": [asdict(task) for task in tasks]}
    run = RunDirectory.open(work, config)
    blank = work / "blank"
    torch.manual_seed(seed)
    if not (blank / "model.safetensors").is_file():
        write_blank(blank, corpus(tasks, seed), family_name)
    family = FAMILIES[family_name](path=str(blank))
    engine = torch_engine(family.load(), settings=TorchSettings(precision="float32"), paradigm=settings, device=torch.device("cpu"))
    start = None
    if (latest := run.latest_checkpoint()) is not None:
        engine.load(latest[1])
        start = TrainingState.load(latest[1])
    windows = Mixture(family=family, tasks=tasks, seed=seed).windows(start.step if start else 0, settings.steps)
    train(engine=engine, batches=windows, balancer=Fixed(weight=0.3), settings=settings, run=run, evaluate=lambda step: None, start=start)
    family.save(engine.model, directory)
    run.finish({"seed": seed, "steps": settings.steps})


def main() -> None:
    """Command line of `make base`."""
    parser = argparse.ArgumentParser(description="Pretrain a packaged tiny checkpoint (resumable).")
    parser.add_argument("--family", choices=FAMILIES, default="qwen3vl")
    parser.add_argument("--size", choices=TASKS, default="tiny")
    parser.add_argument("--out", type=Path, help="where the checkpoint goes (default: into the package)")
    parser.add_argument("--work", type=Path, help="run directory of the pretraining (default: multirun/base/SIZE/FAMILY)")
    parser.add_argument("--steps", type=int, default=SETTINGS.steps)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    build(
        options.out or Path(locate.packaged(options.family, options.size)),
        work=options.work or Path("multirun/base") / options.size / options.family,
        settings=replace(SETTINGS, steps=options.steps),
        seed=options.seed,
        family_name=options.family,
        size=options.size,
    )


if __name__ == "__main__":
    main()
