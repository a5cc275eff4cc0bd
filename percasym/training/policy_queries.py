"""Queries that rewards make to the model in training: the implementation of `percasym.rewards.base.Policy`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from percasym.models.base import Family
from percasym.models.mode import evaluating
from percasym.objectives.token_nll import TokenNll, supervised
from percasym.rollout.native import decode
from percasym.types import UNSUPERVISED, Prompt, Response, Rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyQueries:
    """Greedy answers and log-probabilities of a model whose weights are all on this rank, in eval mode and in the sampler's precision."""

    model: PreTrainedModel
    family: Family
    max_new_tokens: int
    batch_size: int
    """Rows in one batch."""
    temperature: float
    """Of the log-probabilities: that at which the rollouts were sampled."""

    def answers(self, prompts: Sequence[Prompt]) -> list[Response]:
        """Greedy responses."""
        return self._decoded(prompts, stop=None)

    def percepts(self, prompts: Sequence[Prompt]) -> list[str | None]:
        """The percepts of greedy responses; decoding ends with the perception span."""
        closing = self.family.codec().grammar.close_perception
        return [response.percept for response in self._decoded(prompts, stop=closing)]

    @torch.inference_mode()
    def logprobs(self, prompts: Sequence[Prompt], rollouts: Sequence[Rollout]) -> list[list[float]]:
        """Log-probability of each token of each rollout's completion after these prompts."""
        pairs = zip(prompts, rollouts, strict=True)
        rows = [self.family.prompt(prompt).followed_by(rollout.completion.ids, rollout.labels) for prompt, rollout in pairs]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
        module, device = TokenNll(self.model, dtype=None, temperature=self.temperature), next(self.model.parameters()).device
        found: dict[int, list[float]] = {}
        with evaluating(self.model):
            for start in range(0, len(order), self.batch_size):
                chosen = order[start : start + self.batch_size]
                batch = self.family.collate([rows[i] for i in chosen])
                nll = module(supervised(batch.labels).to(device), **batch.to(device).arguments).cpu()
                masks = batch.labels != UNSUPERVISED
                found |= {i: (-row[mask]).tolist() for i, row, mask in zip(chosen, nll, masks, strict=True)}
        return [found[i] for i in range(len(rows))]

    def _decoded(self, prompts: Sequence[Prompt], stop: str | None) -> list[Response]:
        codec = self.family.codec()
        rows = [self.family.prompt(prompt) for prompt in prompts]
        done = decode(self.model, self.family, rows, max_new_tokens=self.max_new_tokens, batch_size=self.batch_size, stop=stop)
        return [codec.rollout(prompt, completion).response for prompt, completion in zip(prompts, done, strict=True)]
