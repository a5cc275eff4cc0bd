"""A 2B-shaped model on one GPU: SFT steps with and without ngdiff, flash attention, native decoding; every number beside the plan's.

    python benchmarks/gpu.py                     Qwen3-VL-2B's shape with random weights, at most 8 minutes; benchmarks/results/gpu.json
    python benchmarks/gpu.py --toy --out FILE    the same measurements of a tiny shape, on any device, in seconds

Needs no checkpoint and no network. Rows have the lengths of 9x9 Sudokus: 324 image tokens, 94 of perception, 2,713 of reasoning.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, PreTrainedModel

from percasym.balance.base import SpanStats
from percasym.config.paradigm import Sft
from percasym.config.settings import DeepSpeedSettings, TorchSettings
from percasym.engine.deepspeed import deepspeed_engine
from percasym.engine.engine import SpanEngine
from percasym.engine.torch import torch_engine
from percasym.models.adapt import Adaptation, adapt
from percasym.models.base import Batch, Row
from percasym.models.checkpoint import config_from_dict, silence_transformers
from percasym.models.locate import released
from percasym.models.qwen3vl import Qwen3VL, anatomy
from percasym.objectives.coefficients import span_counts
from percasym.plan import memory
from percasym.plan.inputs import Answers, Layout, Lengths, count_parameters
from percasym.plan.work import work
from percasym.rollout.loop import Greedy, generate_batch
from percasym.training.span_gradients import backward, measure_spans
from percasym.types import UNSUPERVISED, Span

RESULTS = Path(__file__).parent / "results" / "gpu.json"
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "4090": 165e12}
"""Dense bfloat16, from data sheets; the MFU of any other device is null."""
MAX_SECONDS = 480
FROZEN = ("vision", "projector")
PARTS = ("zero3", "plain", "attention", "decoding")
"""The most important first: SFT under ZeRO-3 with weights in bfloat16, then in plain PyTorch with float32 weights."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What is measured: sizes of rows and batches."""

    grid: int
    """Patches on a side of the picture; 2 x 2 are one image token."""
    perception: int
    reasoning: int
    rows: int
    """In one forward."""
    micro_batches: int
    decoded: int
    """Rows decoded together."""
    new_tokens: int
    repeats: int

    @property
    def image_tokens(self) -> int:
        """Positions of the picture in the language model."""
        return (self.grid // 2) ** 2


FULL = Shape(grid=36, perception=94, reasoning=2713, rows=4, micro_batches=2, decoded=32, new_tokens=256, repeats=2)
TOY = Shape(grid=4, perception=6, reasoning=24, rows=2, micro_batches=2, decoded=2, new_tokens=4, repeats=1)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure each part in a process of its own, print and write JSON; a part that would begin after MAX_SECONDS is left out and named.

    In one process a DeepSpeed engine would stay in memory while the next part is measured: its modules hold hooks that refer to it.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="measure these alone and keep the rest of the file")
    parser.add_argument("--part", choices=PARTS, help="measure this one in this process and print it")
    given = parser.parse_args(argv)
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not given.toy:
        print("benchmarks/gpu.py needs a GPU; --toy runs anywhere.")
        return {}
    if given.part:
        found = _measured(given.part, toy=given.toy, device=device)
        print(json.dumps(found))
        return found
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    shape = TOY if given.toy else FULL
    results: dict[str, Any] = {"device": name, "torch": torch.__version__, "shape": vars(shape), "left_out": []}
    if given.parts != PARTS and given.out.exists():
        kept = json.loads(given.out.read_text(encoding="utf-8"))
        same = all(kept[name] == results[name] for name in ("device", "torch", "shape"))
        results |= {part: kept[part] for part in PARTS if part in kept and same}
    began = time.perf_counter()
    for part in given.parts:
        if time.perf_counter() - began > MAX_SECONDS:
            results["left_out"].append(part)
        else:
            results[part] = _in_a_process(part, toy=given.toy)
            print(part, json.dumps(results[part]), flush=True)
        results["seconds"] = time.perf_counter() - began
        given.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return results


def _in_a_process(part: str, *, toy: bool) -> dict[str, Any]:
    """What a process of its own measured of a part, or the end of its messages."""
    command = [sys.executable, __file__, "--part", part, *(["--toy"] if toy else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines() if done.returncode == 0 else []
    return json.loads(lines[-1]) if lines else {"error": " ".join(done.stderr.split())[-200:]}


def _measured(part: str, *, toy: bool, device: torch.device) -> dict[str, Any]:
    """One part's numbers, or the error that it ended with."""
    silence_transformers()
    values = dict(released("qwen3vl", "2B").config)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    peak = next((flops for key, flops in PEAK_FLOPS.items() if key in name), None)
    bench = Bench(values=_toy(values) if toy else values, shape=TOY if toy else FULL, device=device, peak=peak)
    try:
        return bench.parts()[part]()
    except (RuntimeError, ImportError, ValueError) as error:  # Out of memory, a kernel that is not here.
        return {"error": " ".join(str(error).split())[:200]}


def _toy(config: Any) -> dict[str, Any]:
    """The configuration shrunk in depth, width and vocabulary."""
    text = dict(config["text_config"]) | {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 16, "vocab_size": 512,
    }  # fmt: skip
    rope = next(name for name in ("rope_parameters", "rope_scaling") if name in text)
    text[rope] = dict(text[rope]) | {"mrope_section": [4, 2, 2]}
    vision = dict(config["vision_config"]) | {
        "hidden_size": 32, "intermediate_size": 64, "depth": 2, "num_heads": 2, "out_hidden_size": 64, "deepstack_visual_indexes": [0],
    }  # fmt: skip
    ids = {"image_token_id": 500, "video_token_id": 501, "vision_start_token_id": 502, "vision_end_token_id": 503}
    return dict(config) | ids | {"text_config": text, "vision_config": vision}


HALF = dict.fromkeys(Span, 0.5)


def _step(engine: SpanEngine, batches: list[Batch], counts: tuple[int, ...]) -> None:
    """One optimizer step of the weighted loss."""
    backward(engine, batches, HALF, counts)
    engine.step(1e-5)


def _balanced_step(engine: SpanEngine, batches: list[Batch], counts: tuple[int, ...]) -> None:
    """One step of the same loss, with the gradient of each span measured."""
    perception, reasoning = counts
    measure_spans(engine, batches, SpanStats(step=0, num_steps=1, counts=(perception, reasoning)))
    engine.combine(HALF)
    engine.step(1e-5)


@dataclass(kw_only=True)
class Bench:
    """The measurements of one shape on one device."""

    values: dict[str, Any]
    shape: Shape
    device: torch.device
    peak: float | None

    def parts(self) -> dict[str, Callable[[], dict[str, Any]]]:
        """Each measurement by its name in PARTS."""
        return {
            "zero3": lambda: self.sft(rounded=True),
            "plain": lambda: self.sft(rounded=False),
            "attention": self.attention,
            "decoding": self.decoding,
        }

    def model(self, attention: str = "sdpa", **adaptation: Any) -> PreTrainedModel:
        """Random weights on the device, those of a released checkpoint's type of values."""
        torch.manual_seed(0)
        with self.device:
            made = AutoModelForImageTextToText.from_config(
                config_from_dict(self.values), dtype=torch.float32, attn_implementation=attention
            )
        return adapt(made, Adaptation(freeze=FROZEN, **adaptation), Qwen3VL.parts)

    def batch(self, seed: int, rows: int, *, response: bool = True) -> Batch:
        """Random tokens after a random picture."""
        shape, draw = self.shape, torch.Generator().manual_seed(seed)
        image = [self.values["image_token_id"]] * shape.image_tokens
        prompt = torch.tensor([1, self.values["vision_start_token_id"], *image, 2])
        num = shape.perception + shape.reasoning if response else 0
        ids = torch.cat([prompt.expand(rows, -1), torch.randint(3, 400, (rows, num), generator=draw)], dim=1)
        spans = [UNSUPERVISED] * len(prompt) + ([Span.perception] * shape.perception + [Span.reasoning] * shape.reasoning) * response
        patch = self.values["vision_config"]
        width = 3 * patch["temporal_patch_size"] * patch["patch_size"] ** 2
        return Batch(
            ids=ids,
            mask=torch.ones_like(ids),
            labels=torch.tensor(spans).expand(rows, -1),
            inputs={
                "pixel_values": torch.randn(rows * shape.grid**2, width, generator=draw),
                "image_grid_thw": torch.tensor([[1, shape.grid, shape.grid]]).expand(rows, -1),
            },
            aligned={"position_ids": torch.arange(ids.shape[1]).expand(3, rows, -1).clone()},
        )

    def plan(self, *, measures: bool, rounded: bool) -> tuple[float, float, float]:
        """Planned bytes of a training step, its operations, and those without anything computed twice."""
        shape, parts = self.shape, anatomy(self.values, None)
        prompt = 3
        lengths = Lengths(
            prompt=prompt,
            picture=shape.image_tokens,
            patches=shape.grid**2,
            perception=shape.perception,
            reasoning=shape.reasoning,
            longest=prompt + shape.image_tokens + shape.perception + shape.reasoning,
            source="this benchmark",
        )
        adaptation = Adaptation(freeze=FROZEN, gradient_checkpointing=True)
        layout = Layout(
            num_ranks=1, zero_stage=3 if rounded else 0, offload=False, computing_bytes=2, checkpointing=True, eager=False, adapters=False,
            rows=shape.rows, step_rows=shape.rows * shape.micro_batches, measures_gradients=measures, eval_bytes=2,
            evaluation=Answers(rows=1, prompts=1, max_new_tokens=1), sampled=None, stored_bytes=2 if rounded else 4,
        )  # fmt: skip
        parameters = count_parameters(parts, adaptation)
        cost = work(parts, parameters, layout, lengths)
        held = dict(memory.training(parts, parameters, layout, lengths)) | {"reserve": 0}  # What PyTorch's allocator does not count.
        if not measures:
            held["span gradient"] = 0
        return sum(held.values()), cost.flops, cost.model_flops

    def sft(self, *, rounded: bool) -> dict[str, Any]:
        """Steps with gradient checkpointing, with and without both span gradients: tokens/s, MFU, and peak memory beside the plan."""
        model, paradigm = self.model(gradient_checkpointing=True), Sft(steps=9, batch_size=8, micro_batch_size=1, lr=1e-5)
        if rounded:
            settings = DeepSpeedSettings(precision="bfloat16", zero_stage=3, weights="bfloat16")
            engine = deepspeed_engine(model, settings=settings, paradigm=paradigm, device=self.device)
        else:
            engine = torch_engine(model, settings=TorchSettings(precision="bfloat16"), paradigm=paradigm, device=self.device)
        del model
        batches = [self.batch(seed, self.shape.rows) for seed in range(self.shape.micro_batches)]
        tokens = sum(batch.ids.numel() for batch in batches)
        counts = tuple(sum(span_counts([batch.labels]) for batch in batches).tolist())
        found = {}
        for balance, made in (("none", _step), ("ngdiff", _balanced_step)):
            step = partial(made, engine, batches, counts)
            seconds = self._timed(step, warm_up=2)  # The first update makes AdamW's moments; the second runs as all that follow.
            with self._peak() as peak:
                step()
            planned, flops, model_flops = self.plan(measures=balance == "ngdiff", rounded=rounded)
            found[balance] = {
                "seconds": seconds,
                "tokens_per_second": tokens / seconds,
                "mfu": model_flops / seconds / self.peak if self.peak else None,
                "all_flops_frac": flops / seconds / self.peak if self.peak else None,
                "peak_bytes": peak.bytes,
                "planned_bytes": planned,
            }
        return found

    def attention(self) -> dict[str, Any]:
        """Seconds of forward and backward of the language model under each attention kernel."""
        found: dict[str, Any] = {}
        for kernel in ("sdpa", "flash_attention_2"):
            if kernel == "flash_attention_2" and (find_spec("flash_attn") is None or self.device.type != "cuda"):
                found[kernel] = "flash-attn or a GPU is not here"
                continue
            model, batch = self.model(kernel, gradient_checkpointing=True).train(), self.batch(0, self.shape.rows).to(self.device)

            def once(model: PreTrainedModel = model, batch: Batch = batch) -> None:
                with torch.autocast(self.device.type, dtype=torch.bfloat16, cache_enabled=False):
                    hidden = model.model(**batch.arguments, use_cache=False).last_hidden_state
                hidden.float().square().mean().backward()
                model.zero_grad()

            found[kernel] = self._timed(once)
            del model
        return found

    @torch.inference_mode()
    def decoding(self) -> dict[str, Any]:
        """Greedy tokens per second of the native loop, weights in bfloat16."""
        model, shape = self.model().eval().to(torch.bfloat16), self.shape
        prompt = self.batch(0, 1, response=False)
        rows = [Row(ids=prompt.ids[0].tolist(), labels=(), inputs=prompt.inputs) for _ in range(shape.decoded)]
        family: Any = SimpleNamespace(codec=lambda: SimpleNamespace(end=-1), collate=lambda some: self.batch(0, len(some), response=False))
        greedy = Greedy(banned=torch.tensor([0], device=self.device))
        free: list[tuple[int, ...]] = [()] * shape.decoded

        def decode() -> None:
            with torch.autocast(self.device.type, dtype=torch.bfloat16):
                generate_batch(model, family, rows, greedy, prefixes=free, max_new_tokens=shape.new_tokens, stop=None)

        seconds = self._timed(decode)
        return {"seconds": seconds, "tokens_per_second": shape.decoded * shape.new_tokens / seconds, "rows": shape.decoded}

    def _timed(self, call: Callable[[], None], *, warm_up: int = 1) -> float:
        """Median seconds of a call, after some that are not counted."""
        seconds = []
        for _ in range(warm_up + self.shape.repeats):
            self._wait()
            began = time.perf_counter()
            call()
            self._wait()
            seconds.append(time.perf_counter() - began)
        return median(seconds[warm_up:])

    @contextmanager
    def _peak(self) -> Iterator[SimpleNamespace]:
        """Most bytes that PyTorch's allocator held within the block; None on a CPU."""
        found = SimpleNamespace(bytes=None)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        yield found
        if self.device.type == "cuda":
            found.bytes = torch.cuda.max_memory_allocated(self.device)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


if __name__ == "__main__":
    main()
