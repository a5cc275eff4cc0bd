"""Groups of the native engine beside greedy decoding, a full forward and the model's own distribution."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from percasym.config.sampling import Native
from percasym.models.base import Family
from percasym.rollout.native import NativeRollouts, decode
from percasym.spans.grammar import Grammar
from percasym.types import Prompt, Rollout, Span

TEMPERATURE = 0.7
TOKENS = 12


def sampled(family: Family, model, prompts: list[Prompt], *, group_size: int = 3, seed: int = 0, **options) -> list[list[Rollout]]:
    engine = NativeRollouts(family=family, sampling=Native(**{"max_new_tokens": TOKENS, "batch_size": 16} | options))
    engine.refresh(model)
    return engine.generate(prompts, group_size=group_size, seed=seed)


def tokens_of(groups: list[list[Rollout]]) -> list[list[tuple[int, ...]]]:
    return [[rollout.completion.ids for rollout in group] for group in groups]


@contextmanager
def favoured(model, tokens: list[int], amount: float) -> Iterator[None]:
    """While it lasts, the head adds `amount` to the logits of some tokens."""

    def push(_, __, logits: torch.Tensor) -> torch.Tensor:
        logits[..., tokens] += amount
        return logits

    hook = model.lm_head.register_forward_hook(push)
    yield
    hook.remove()


@torch.no_grad()
def full_logits(model, family: Family, prompt: Prompt, ids: tuple[int, ...]) -> torch.Tensor:
    """[len(ids), V] from one forward over prompt and completion."""
    prompt_row = family.prompt(prompt)
    row = replace(prompt_row, ids=(*prompt_row.ids, *ids), labels=(-1,) * (len(prompt_row.ids) + len(ids)))
    return model(**family.collate([row]).arguments).logits[0, len(prompt_row.ids) - 1 : -1]


def test_logprobs_are_those_of_a_full_forward_at_the_temperature(model, family: Family, prompts: list[Prompt]) -> None:
    groups = sampled(family, model, prompts, temperature=TEMPERATURE, top_p=0.9, top_k=20)
    for rollout in (rollout for group in groups for rollout in group):
        ids = torch.tensor(rollout.completion.ids)
        logits = full_logits(model, family, rollout.prompt, rollout.completion.ids)
        expected = (logits / TEMPERATURE).log_softmax(-1).gather(1, ids[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(rollout.completion.logprobs), expected, rtol=0, atol=1e-4)


def test_first_tokens_follow_the_softmax(model, family: Family, prompts: list[Prompt]) -> None:
    num, temperature, num_bins = 400, 4.0, 8
    (group,) = sampled(family, model, prompts[:1], group_size=num, max_new_tokens=1, temperature=temperature, batch_size=num)
    logits = full_logits(model, family, prompts[0], (0,))[0]
    logits[family.codec().banned] = -torch.inf
    chances, tokens = (logits / temperature).softmax(-1).sort(descending=True)
    bins = ((chances.cumsum(0) - chances) * num_bins).long().clamp(max=num_bins - 1)  # Of like mass, the likeliest tokens first.
    expected = num * torch.zeros(num_bins).index_add(0, bins, chances)
    observed = torch.zeros(num_bins)
    for token, count in Counter(rollout.completion.ids[0] for rollout in group).items():
        observed[bins[tokens == token]] += count
    used = expected > 0
    freedom = int(used.sum()) - 1
    statistic = ((observed - expected)[used] ** 2 / expected[used]).sum()
    assert freedom >= 3 and expected[used].min() > 5, "the distribution should be wide enough to be tested"
    assert statistic < freedom + 4 * (2 * freedom) ** 0.5  # Mean and standard deviation of chi-square are n and sqrt(2n).


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}])
def test_the_narrowest_choice_is_the_greedy_one(model, family: Family, prompts: list[Prompt], narrow: dict[str, float]) -> None:
    greedy = decode(model, family, [family.prompt(prompt) for prompt in prompts], max_new_tokens=TOKENS, batch_size=1)
    assert tokens_of(sampled(family, model, prompts, group_size=2, **narrow)) == [[completion.ids] * 2 for completion in greedy]


def test_a_rollout_does_not_depend_on_its_batch(model, family: Family, prompts: list[Prompt]) -> None:
    alone = sampled(family, model, prompts, batch_size=1)
    assert tokens_of(alone) == tokens_of(sampled(family, model, prompts, batch_size=2)) == tokens_of(sampled(family, model, prompts))
    assert tokens_of(alone) == tokens_of(sampled(family, model, prompts[::-1]))[::-1]


def test_rows_that_finish_change_nothing_for_the_others(model, family: Family, prompts: list[Prompt]) -> None:
    with favoured(model, [family.codec().end], 6.0):
        together = sampled(family, model, prompts, group_size=6, temperature=3.0, max_new_tokens=20)
        alone = sampled(family, model, prompts, group_size=6, temperature=3.0, max_new_tokens=20, batch_size=1)
    assert tokens_of(together) == tokens_of(alone)
    lengths = {len(rollout.completion.ids) for group in together for rollout in group}
    assert len(lengths) > 2, "the rows should finish at different times"
    assert all(r.completion.finished == (r.completion.ids[-1] == family.codec().end) for group in together for r in group)


def test_siblings_and_seeds_differ_and_repeat(model, family: Family, prompts: list[Prompt]) -> None:
    first = sampled(family, model, prompts, temperature=2.0)
    assert all(len(set(group)) == len(group) for group in tokens_of(first))
    assert tokens_of(first) == tokens_of(sampled(family, model, prompts, temperature=2.0))
    assert tokens_of(first) != tokens_of(sampled(family, model, prompts, temperature=2.0, seed=1))


@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"top_p": 0.9}])
def test_banned_tokens_are_never_drawn_whatever_their_logit(model, family: Family, prompts: list[Prompt], options: dict) -> None:
    banned = family.codec().banned
    with favoured(model, banned, 200.0):
        groups = sampled(family, model, prompts, **options)
    assert not {token for group in tokens_of(groups) for ids in group for token in ids} & set(banned)
    assert all(chance < -100 for group in groups for rollout in group for chance in rollout.completion.logprobs or ())


def test_a_forced_percept_starts_every_rollout(model, family: Family, prompts: list[Prompt]) -> None:
    codec = family.codec()
    engine = NativeRollouts(family=family, sampling=Native(max_new_tokens=TOKENS, top_k=1))
    engine.refresh(model)
    groups = engine.generate(prompts, group_size=2, seed=0, forced=[Grammar().demonstrate(percept, "", "") for percept in ("12/34", "1-2")])
    for prompt, group, percept in zip(prompts, groups, ["12/34", "1-2"], strict=True):
        prompt_row, forced = family.prompt(prompt), codec.encode(codec.grammar.perception(percept))
        row = replace(prompt_row, ids=(*prompt_row.ids, *forced), labels=(-1,) * (len(prompt_row.ids) + len(forced)))
        (greedy,) = decode(model, family, [row], max_new_tokens=TOKENS, batch_size=1)
        for rollout in group:
            assert rollout.completion.ids == (*forced, *greedy.ids)
            assert rollout.completion.logprobs is None
            assert rollout.labels == (Span.perception,) * len(forced) + (Span.reasoning,) * len(greedy.ids)


def test_the_model_stays_in_the_mode_it_was_in(model, family: Family, prompts: list[Prompt]) -> None:
    model.train()
    sampled(family, model, prompts[:1], max_new_tokens=1)
    assert model.training
    model.eval()


def test_a_diverged_model_is_not_sampled_from(model, family: Family, prompts: list[Prompt]) -> None:
    with favoured(model, [0], float("nan")), pytest.raises(FloatingPointError, match="has diverged"):
        sampled(family, model, prompts[:1])
