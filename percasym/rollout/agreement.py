"""Do the log-probabilities that came with rollouts agree with those of the model in training?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from transformers import PreTrainedModel

from percasym.models.base import Family
from percasym.types import Rollout


@torch.inference_mode()
def disagreement(model: PreTrainedModel, family: Family, rollouts: Sequence[Rollout], temperature: float) -> float:
    """Mean |difference| in nats a token over these rollouts, one forward of the model for each."""
    trunk, head, device = model.get_submodule("model"), model.get_submodule("lm_head"), next(model.parameters()).device
    was_training = model.training
    model.eval()
    gaps = []
    for rollout in rollouts:
        asked, completion = family.prompt(rollout.prompt), rollout.completion
        assert completion.logprobs is not None, "a rollout engine gives the log-probability of each token"
        row = replace(asked, ids=(*asked.ids, *completion.ids), labels=(*asked.labels, *rollout.labels))
        hidden = trunk(**family.collate([row]).to(device).arguments, use_cache=False).last_hidden_state  # [1, T, D]
        logprobs = (head(hidden[0, len(asked.ids) - 1 : -1]).float() / temperature).log_softmax(-1)  # [N, V]
        ours = logprobs.gather(1, torch.tensor(completion.ids, device=device)[:, None])[:, 0]
        gaps.append((ours - torch.tensor(completion.logprobs, device=device)).abs())
    model.train(was_training)
    return torch.cat(gaps).mean().item()
