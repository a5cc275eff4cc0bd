"""The plan of the RL preset whose rollouts and evaluations go through vLLM."""

from __future__ import annotations

from pathlib import Path

import pytest

from percasym.config.resolve import composed
from percasym.plan.plan import plan

CONF = Path(__file__).resolve().parents[3] / "conf"


@pytest.mark.parametrize("family", ["qwen3vl", "internvl35"])
def test_8b_with_vllm_fits_eight_gpus_of_75_gb_without_offload(family: str) -> None:
    words = ["scale=paper", "experiment=eight_gpus_rl_vllm", f"model={family}", "model.size=8B"]
    cost = plan(composed(words, CONF), gpu_gb=80)
    assert not cost.layout.offload and cost.layout.zero_stage == 3 and cost.layout.num_ranks == 8
    assert cost.rollouts["vLLM"] == cost.evaluation["vLLM"] == 28e9 and "vLLM" not in {part for part, held in cost.training.items() if held}
    assert "gathered weights" not in cost.evaluation, "weights are sent to vLLM one by one"
    assert cost.peak < 75e9, "rollouts, beside a reward that queries the gathered model: 74 GB"
    awake = plan(composed([*words, "rollout.sleep=false"], CONF), gpu_gb=80)
    assert awake.training["vLLM"] == 28e9 and sum(awake.training.values()) > sum(cost.training.values())
    half = plan(composed([*words, "rollout.gpu_memory_frac=0.5"], CONF), gpu_gb=80)
    assert half.peak > 75e9, "the share of vLLM decides"
