"""Whoever decodes gets the weights in the form that it takes: whole, or one tensor at a time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from percasym.app.collect_rollouts import InferenceOnlyEngine
from percasym.app.evaluator import Evaluator
from percasym.engine.ranks import SINGLE_RANK
from tests.unit.training.fakes import WordWeights


class Greedy:
    """A greedy engine that keeps what it was refreshed with."""

    def __init__(self, streams: bool) -> None:
        self.streams, self.calls = streams, []

    def refresh(self, *given: Any) -> None:
        self.calls.append(given)

    def release(self) -> None:
        self.calls.append("released")


@pytest.mark.parametrize(("streams", "given"), [(False, ("whole",)), (True, ("parts", "gather"))])
def test_an_evaluation_gathers_the_weights_only_for_an_engine_that_decodes_with_them(streams: bool, given: tuple[str, ...]) -> None:
    greedy = Greedy(streams)
    settings = SimpleNamespace(evaluation=SimpleNamespace(num_samples=4, num_curve_samples=8))
    evaluator = Evaluator(settings, SimpleNamespace(), WordWeights(), SINGLE_RANK, greedy)

    def evaluated() -> None:
        with evaluator._refreshed() as refreshed:
            assert refreshed is greedy and greedy.calls == [given]
            raise RuntimeError("of the decoder")

    with pytest.raises(RuntimeError, match="of the decoder"):
        evaluated()
    assert greedy.calls == [given, "released"], "it is released however the evaluation ends"


def test_a_model_on_one_rank_is_whole_in_both_forms(tiny_qwen) -> None:
    model = tiny_qwen()
    engine = InferenceOnlyEngine(model=model, device=torch.device("cpu"))
    with engine.gathered_weights() as whole, engine.partitioned_weights() as (parts, gather):
        assert whole is parts is model and gather is None
    values = torch.ones(2)
    assert engine.all_reduce_sum(values) is values
