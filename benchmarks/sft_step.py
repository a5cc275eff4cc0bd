"""One optimizer step of ours beside a plain `transformers.Trainer`, and NGDiff beside a fixed weight.

    python benchmarks/sft_step.py                                  every case, 5 rounds, one thread: two minutes on a free core
    python benchmarks/sft_step.py --cases tiny --rounds 2          a quick look
    python benchmarks/sft_step.py --engine deepspeed --stage 1     under ZeRO-1

The packaged Qwen3-VL as `scale=tiny` trains it (vision frozen) on the demonstrations of `task=sudoku`: model, rows, precision, optimizer
and clipping are the same in every arm. A round goes through all arms once, so a slow minute of the machine meets them all;
a ratio is the median over rounds, of processor seconds, which other processes disturb less than the clock (shown beside them).

    trainer    Trainer: all rows in one forward, its attention mask, the model's own loss
    one        ours, `none`, all rows in one forward: as before rows were cut by length
    none       ours
    fixed      ours, balance=fixed
    ngdiff     ours, both span gradients and their Gramian at every step
    naive      NGDiff by two backward passes over one forward, through the model's own logits
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from types import SimpleNamespace

os.environ["DS_ACCELERATOR"] = "cpu"  # Before transformers, which imports DeepSpeed where it finds it.

import torch
import transformers
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from percasym.balance.base import equalizing_weight
from percasym.balance.fixed import Fixed
from percasym.balance.ngdiff import NGDiff
from percasym.balance.none import NoBalance
from percasym.config.paradigm import Sft
from percasym.config.settings import DeepSpeedSettings, TorchSettings
from percasym.data.generated import Generated
from percasym.engine.deepspeed import deepspeed_engine
from percasym.engine.torch import torch_engine
from percasym.models.base import Batch
from percasym.models.qwen3vl import IMAGE, Qwen3VL
from percasym.objectives.coefficients import coefficients, span_counts
from percasym.runs.requests import Requests
from percasym.tasks.sudoku.task import Sudoku
from percasym.training.progress import TrainingState
from percasym.training.sft import train
from percasym.training.span_gradients import Share
from percasym.types import UNSUPERVISED, Span

RESULTS = Path(__file__).parent / "results" / "sft_step.json"
ROWS, CPU = 16, torch.device("cpu")
FAMILY = Qwen3VL(freeze=("vision", "projector"))
GRID = {"size": 4, "givens": (8, 10), "variety_frac": 1.0}
CASES = {
    "tiny": (Sudoku(**GRID, verbosity=2, restate=True), ("trainer", "one", "none", "fixed", "ngdiff")),
    "2.5 %": (Sudoku(**GRID, verbosity=3, restate=True), ("fixed", "ngdiff")),
    "ragged": (Sudoku(**GRID, verbosity=2, restate=True, terse_frac=0.5), ("trainer", "one", "none")),
}
"""Demonstrations of `scale=tiny`; with as much reasoning as makes perception 2.5 % of the tokens; half of them results only."""
PAIRS = [("one", "trainer"), ("none", "trainer"), ("none", "one"), ("ngdiff", "fixed"), ("naive", "fixed")]


class Watch(TrainerCallback):
    """Processor and wall seconds of the last step: of a Trainer's, from its begin to its end, or of what runs inside `with`."""

    def __enter__(self) -> Watch:
        self._began = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.process_time() - self._began[0], time.perf_counter() - self._began[1]

    def on_step_begin(self, *_: object, **__: object) -> None:
        self.__enter__()

    def on_step_end(self, *_: object, **__: object) -> None:
        self.__exit__()


class ForbiddenPolicy:
    """A run that keeps the numbers of its last step."""

    def __init__(self) -> None:
        self.requests = Requests()

    def log(self, step: int, values: dict[str, float]) -> None:
        self.values = values

    def progress(self, *_: object, **__: object):
        return nullcontext(SimpleNamespace(advance=lambda step, **shown: None))

    def checkpoint(self, *_: object) -> None: ...


def trainer_step(model: torch.nn.Module, batch: Batch) -> tuple[float, float]:
    """A step of a plain Trainer on what a stock processor would hand it; its first is not counted."""
    image = FAMILY.codec().tokenizer.get_vocab()[IMAGE]
    labels = batch.ids.masked_fill(batch.labels == UNSUPERVISED, -100)
    inputs = {"input_ids": batch.ids, "attention_mask": batch.mask, "mm_token_type_ids": (batch.ids == image).int(), "labels": labels}
    watch = Watch()
    with tempfile.TemporaryDirectory() as directory:
        arguments = TrainingArguments(
            output_dir=directory, max_steps=2, per_device_train_batch_size=1, learning_rate=5e-4, max_grad_norm=1.0, adam_beta2=0.95,
            weight_decay=0.0, optim="adamw_torch_fused", use_cpu=True, bf16=False, report_to="none", save_strategy="no",
            logging_strategy="no", disable_tqdm=True, remove_unused_columns=False, dataloader_num_workers=0,
        )  # fmt: skip
        trainer = Trainer(model, arguments, train_dataset=[0, 1], data_collator=lambda _: {**inputs, **batch.inputs}, callbacks=[watch])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    assert trainer.model_wrapped is trainer.model, "the Trainer is not plain: it wrapped the model"
    return watch.seconds


def our_step(engine, balancer, window: list[Batch]) -> tuple[tuple[float, float], float]:
    """A step of our own loop, not the first of a run (which always measures both gradients), and its weight."""
    run, settings = ForbiddenPolicy(), Sft(steps=2, batch_size=ROWS, micro_batch_size=ROWS, lr=5e-4)
    start = TrainingState(step=1, balance=balancer.start(), share=Share(tokens=0.0, loss=0.0, gradient=0.0))
    with Watch() as watch:
        train(engine=engine, batches=[window], balancer=balancer, settings=settings, run=run, evaluate=lambda step: None, start=start)
    return watch.seconds, run.values["balance/weight"]


def naive_step(model: torch.nn.Module, window: list[Batch]) -> tuple[tuple[float, float], float]:
    """Both span gradients as anyone would compute them, and the weight that evens them out; no update."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with Watch() as watch:
        counts = span_counts(batch.labels for batch in window).tolist()
        sums = {span: [torch.zeros_like(parameter) for parameter in trained] for span in Span}
        for batch in window:
            logits = model(**batch.arguments).logits[:, :-1]
            nll = cross_entropy(logits.transpose(1, 2), batch.ids[:, 1:], reduction="none")
            for span, total in sums.items():
                loss = (nll * coefficients(batch.labels[:, 1:], {span: 1.0}, counts)).sum()
                parts = torch.autograd.grad(loss, trained, retain_graph=span is Span.perception)
                torch._foreach_add_(total, parts)
        norms = [math.sqrt(sum(float(part.square().sum()) for part in total)) for total in sums.values()]
    return watch.seconds, equalizing_weight(*norms)


def measure(task: Sudoku, arms: tuple[str, ...], rounds: int, engine) -> dict:
    """Seconds of every arm in every round; round 0 warms up and is not kept."""
    stream = Generated(task=task, family=FAMILY, batch_size=ROWS, micro_batch_size=ROWS, seed=0)
    plain, errors, seconds = FAMILY.load(), [], {arm: [] for arm in (*arms, *["naive"] * ("ngdiff" in arms))}
    for number in range(rounds + 1):
        window = stream.window(number)
        whole = Batch.joined(window)
        for arm in arms if number % 2 else reversed(arms):
            match arm:
                case "trainer":
                    spent = trainer_step(plain, whole)
                case "ngdiff":  # Right after `naive`, so from the same weights.
                    spent, exact = naive_step(engine.model.train(), window)
                    if number:
                        seconds["naive"].append(spent)
                    spent, weight = our_step(engine, NGDiff(), window)
                    errors.append(abs(weight - exact) / exact)
                case "fixed":
                    spent, _ = our_step(engine, Fixed(weight=0.5), window)
                case _:
                    spent, _ = our_step(engine, NoBalance(), [whole] if arm == "one" else window)
            if number:
                seconds[arm].append(spent)
    counts = span_counts([whole.labels]).tolist()
    lengths = whole.mask.sum(1)
    with FlopCounterMode(display=False) as work:
        our_step(engine, NoBalance(), window)
    return {
        "share_of_tokens": counts[0] / sum(counts), "tokens": int(lengths.sum()),
        "shortest": int(lengths.min()), "longest": int(lengths.max()),
        "forwards": [list(batch.ids.shape) for batch in window], "matmul_gflop": work.get_total_flops() / 1e9,
        "weight_error": max(errors, default=None), "seconds": seconds,
    }  # fmt: skip


def matmul_gflops(side: int = 1024) -> float:
    """What one processor second delivers in a square float32 product; the best of 10."""
    left, right = torch.rand(side, side), torch.rand(side, side)
    spent = []
    for _ in range(10):
        with Watch() as watch:
            left @ right
        spent.append(watch.seconds[0])
    return 2 * side**3 / min(spent) / 1e9


def show(name: str, found: dict, gflops: float) -> None:
    rows = f"{found['shortest']} to {found['longest']} tokens, perception {found['share_of_tokens']:.2%}, forwards {found['forwards']}"
    print(f"\n{name}: {ROWS} rows of {rows}")
    found["floor_seconds"] = found["matmul_gflop"] / gflops
    for arm, spent in found["seconds"].items():
        cpu, wall = (median(column) for column in zip(*spent, strict=True))
        print(f"  {arm:>8}: {cpu:.3f} processor s, {wall:.3f} s on the clock; {cpu / found['floor_seconds']:.2f} times our matmul floor")
    found["ratios"] = {}
    for arm, other in PAIRS:
        if {arm, other} <= found["seconds"].keys():
            both = list(zip(found["seconds"][arm], found["seconds"][other], strict=True))
            cpu, wall = ([mine[i] / theirs[i] for mine, theirs in both] for i in range(2))
            found["ratios"][f"{arm} / {other}"] = {"median": median(cpu), "low": min(cpu), "high": max(cpu), "clock": median(wall)}
            print(f"  {arm} / {other}: {median(cpu):.3f} ({min(cpu):.3f} to {max(cpu):.3f}), by the clock {median(wall):.3f}")
    if found["weight_error"] is not None:
        print(f"  weight of ngdiff beside naive, largest relative difference: {found['weight_error']:.1e}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--engine", choices=["torch", "deepspeed"], default="torch")
    arguments.add_argument("--stage", type=int, default=0, help="of ZeRO")
    asked = arguments.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    paradigm = Sft(steps=2, batch_size=ROWS, micro_batch_size=ROWS, lr=5e-4)
    report = {"engine": f"{asked.engine} {asked.stage}", "rounds": asked.rounds, "threads": 1, "matmul_gflops": matmul_gflops()}
    report["cases"] = {}
    print(f"one thread, float32, {asked.engine}, {asked.rounds} rounds; a square product runs at {report['matmul_gflops']:.0f} GFLOP/s")
    for name in asked.cases:
        if asked.engine == "torch":
            engine = torch_engine(FAMILY.load(), settings=TorchSettings(), paradigm=paradigm, device=CPU)
        else:
            engine = deepspeed_engine(FAMILY.load(), settings=DeepSpeedSettings(zero_stage=asked.stage), paradigm=paradigm, device=CPU)
        report["cases"][name] = measure(*CASES[name], asked.rounds, engine)
        show(name, report["cases"][name], report["matmul_gflops"])
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
