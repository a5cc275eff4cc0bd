"""Texts in place of pictures: refused where ranks would deadlock."""

from types import SimpleNamespace
from typing import Any

import pytest

from percasym.app.recipes.sft import _refuse_unequal_ranks
from percasym.config.paradigm import Sft


def settings(stage: int, *freeze: str) -> Any:
    return SimpleNamespace(engine=SimpleNamespace(zero_stage=stage), family=SimpleNamespace(freeze=freeze))


def paradigm(text_frac: float) -> Sft:
    return Sft(steps=1, batch_size=2, micro_batch_size=1, lr=1e-3, text_frac=text_frac)


@pytest.mark.parametrize(("stage", "freeze"), [(3, ()), (3, ("vision", "projector")), (2, ()), (2, ("vision",))])
def test_ranks_that_would_deadlock_are_refused(stage: int, freeze: tuple[str, ...]) -> None:
    ranks: Any = SimpleNamespace(num_ranks=2)
    with pytest.raises(ValueError, match=rf"^paradigm.text_frac=0.1 .* engine.zero_stage={stage} .* Use engine.zero_stage=1, or"):
        _refuse_unequal_ranks(settings(stage, *freeze), paradigm(0.1), ranks)


@pytest.mark.parametrize(
    ("stage", "freeze", "text_frac", "num_ranks"),
    [(3, (), 0.0, 2), (3, (), 0.1, 1), (1, (), 0.1, 2), (2, ("vision", "projector"), 0.1, 2)],
)
def test_others_are_not(stage: int, freeze: tuple[str, ...], text_frac: float, num_ranks: int) -> None:
    ranks: Any = SimpleNamespace(num_ranks=num_ranks)
    assert _refuse_unequal_ranks(settings(stage, *freeze), paradigm(text_frac), ranks) is None
