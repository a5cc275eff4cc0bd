"""The recipe of paradigm=sft: demonstrations for the training loop of `percasym.training.sft`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from percasym.balance.base import refuse_strategy_of_rl
from percasym.config.paradigm import Sft
from percasym.config.settings import Settings
from percasym.data.generated import Generated
from percasym.engine.base import Engine
from percasym.engine.ranks import Ranks
from percasym.runs.base import Run
from percasym.training.progress import TrainingState
from percasym.training.sft import train


class SftRecipe:
    """Train with `paradigm=sft`."""

    split = "train_sft"

    def __init__(self, settings: Settings, device: torch.device, ranks: Ranks) -> None:
        """Raises ValueError when the ranks cannot share a step evenly, or would run different modules where they must not."""
        assert isinstance(settings.paradigm, Sft)
        _refuse_unequal_ranks(settings, settings.paradigm, ranks)
        refuse_strategy_of_rl(settings.balance)
        if settings.tokens is not None and settings.balance.needs in ("gramian", "hidden"):
            raise ValueError(
                "This balance measures gradients of whole span means, and tokens weighs each token. Use tokens with a balance that reads "
                "counts or losses, such as balance=none or balance=fixed."
            )
        self._settings, self._paradigm = settings, settings.paradigm
        self._data = Generated(
            task=settings.task,
            family=settings.family,
            batch_size=settings.paradigm.batch_size,
            micro_batch_size=settings.paradigm.micro_batch_size,
            seed=settings.seed,
            split=self.split,
            text_frac=settings.paradigm.text_frac,
            without=settings.tokens.without if settings.tokens else None,
            rank=ranks.rank,
            num_ranks=ranks.num_ranks,
            longest=ranks.all_reduce_max,
            ahead=device.type != "cpu",
        )

    def train(self, engine: Engine, run: Run, evaluate: Callable[[int], None], checkpoint: Path | None) -> dict[str, Any]:
        """Train from `checkpoint`, or from the start, to the last step; returns perception's shares for the summary."""
        start = TrainingState.load(checkpoint) if checkpoint else None
        share = train(
            engine=engine,
            batches=self._data.windows(start.step if start else 0, self._paradigm.steps),
            balancer=self._settings.balance,
            settings=self._paradigm,
            run=run,
            evaluate=evaluate,
            tokens=self._settings.tokens,
            start=start,
        )
        return {"share": asdict(share)} if share else {}


def _refuse_unequal_ranks(settings: Settings, paradigm: Sft, ranks: Ranks) -> None:
    """A batch without pictures skips the vision tower; ranks that reduce (ZeRO-2) or gather (ZeRO-3) per module would then hang."""
    stage = getattr(settings.engine, "zero_stage", 0)
    trained = not {"vision", "projector"} <= set(getattr(settings.family, "freeze", ()))
    if paradigm.text_frac and ranks.num_ranks > 1 and (stage == 3 or (stage == 2 and trained)):
        raise ValueError(
            f"paradigm.text_frac={paradigm.text_frac} gives some batches no picture, and engine.zero_stage={stage} needs every rank to go "
            "through the same modules. Use engine.zero_stage=1, or paradigm.text_frac=0."
        )
