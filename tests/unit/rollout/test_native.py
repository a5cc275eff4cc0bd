"""Native decoding beside `model.generate` and beside a full forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from percasym.config.sampling import Native
from percasym.models.base import Family, Row
from percasym.models.qwen3 import Qwen3Step
from percasym.models.qwen3vl import Qwen3VL
from percasym.rollout.native import NativeRollouts, decode, decode_branches, ends_with
from percasym.tasks.base import prompt_as_text
from percasym.tasks.graph_coloring.task import GraphColoring
from percasym.tasks.sudoku.task import Sudoku
from percasym.types import Sample, SampleKey


def samples(task: Sudoku | GraphColoring, num: int) -> list[Sample]:
    return [task.sample(SampleKey(task=task.name, split="test", seed=0, index=index)) for index in range(num)]


def generated(model: torch.nn.Module, family: Family, row: Row, max_new_tokens: int) -> tuple[int, ...]:
    """The same continuation by the library's own generate, one row at a time."""
    batch = family.collate([row])
    types = {"mm_token_type_ids": (batch.ids == model.config.image_token_id).int()} if "image_grid_thw" in batch.inputs else {}
    ids = model.generate(
        input_ids=batch.ids,
        attention_mask=batch.mask,
        **batch.inputs,
        **types,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=family.codec().end,
        suppress_tokens=family.codec().banned,
    )
    return tuple(ids[0, batch.ids.shape[1] :].tolist())


@pytest.fixture(scope="module")
def rows(family: Family) -> Sequence[Row]:
    """Pictures of both sizes and a text, so that the batch is ragged."""
    continued = samples(Sudoku(), 3)[2]
    pictures = [one.prompt for one in (*samples(Sudoku(), 2), *samples(GraphColoring(), 1))]
    return [family.prompt(prompt) for prompt in (*pictures, prompt_as_text(continued))]


def test_tokens_equal_those_of_generate(model: torch.nn.Module, family: Family, rows: Sequence[Row]) -> None:
    ours = decode(model, family, rows, max_new_tokens=60, batch_size=4)
    assert [completion.ids for completion in ours] == [generated(model, family, row, 60) for row in rows]


def test_a_decoder_without_a_fast_step_gives_the_same_tokens(
    model: torch.nn.Module, family: Family, rows: Sequence[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = decode(model, family, rows, max_new_tokens=8, batch_size=4)
    monkeypatch.setattr(Qwen3Step, "of", lambda model, num_positions: None)
    assert [one.ids for one in decode(model, family, rows, max_new_tokens=8, batch_size=4)] == [one.ids for one in quick]


def test_a_branch_equals_decoding_after_its_prefix(model: torch.nn.Module, family: Family, rows: Sequence[Row]) -> None:
    beginnings = [[(), tuple(range(20, 20 + i))] for i in range(1, 5)]  # Any text tokens, of four lengths.
    continued = [
        replace(row, ids=(*row.ids, *begun), labels=(-1,) * (len(row.ids) + len(begun)))
        for row, (_, begun) in zip(rows, beginnings, strict=True)
    ]
    advanced: list[int] = []
    pairs = decode_branches(model, family, rows, beginnings, max_new_tokens=12, batch_size=6, advance=advanced.append)
    assert [free.ids for free, _ in pairs] == [one.ids for one in decode(model, family, rows, max_new_tokens=12, batch_size=4)]
    assert [begun.ids for _, begun in pairs] == [one.ids for one in decode(model, family, continued, max_new_tokens=12, batch_size=4)]
    assert all(len(completion.ids) == len(completion.logprobs or ()) <= 12 for pair in pairs for completion in pair)
    assert advanced == [6, 2]


def test_a_narrow_group_equals_generate(model: torch.nn.Module, family: Family) -> None:
    prompts = [one.prompt for one in (*samples(Sudoku(), 1), *samples(GraphColoring(), 1))]
    engine = NativeRollouts(family=family, sampling=Native(max_new_tokens=20, top_k=1))
    engine.refresh(model)
    for prompt, group in zip(prompts, engine.generate(prompts, group_size=3, seed=0), strict=True):
        assert [rollout.completion.ids for rollout in group] == [generated(model, family, family.prompt(prompt), 20)] * 3


def test_logprobs_equal_those_of_a_full_forward(model: torch.nn.Module, family: Family, rows: Sequence[Row]) -> None:
    for row, completion in zip(rows, decode(model, family, rows, max_new_tokens=40, batch_size=4), strict=True):
        batch = family.collate(
            [Row(ids=(*row.ids, *completion.ids), labels=(-1,) * (len(row.ids) + len(completion.ids)), inputs=row.inputs)]
        )
        with torch.no_grad():
            logits = model(**batch.arguments).logits[0, len(row.ids) - 1 : -1]
        logits[:, family.codec().banned] = -torch.inf
        expected = logits.log_softmax(-1).gather(1, torch.tensor(completion.ids)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected, rtol=1e-4, atol=1e-4)


def test_finished_rows_leave_without_changing_the_others() -> None:
    family = Qwen3VL()  # A model that has learned to stop.
    model, many = family.load().eval(), [family.prompt(one.prompt) for one in samples(Sudoku(size=4, givens=(12, 14)), 6)]
    together = decode(model, family, many, max_new_tokens=700, batch_size=6)
    alone = decode(model, family, many, max_new_tokens=700, batch_size=1)
    assert [completion.ids for completion in together] == [completion.ids for completion in alone]
    assert len({len(completion.ids) for completion in together}) > 1, "the rows should finish at different times"


def test_an_unfinished_row_is_marked(model: torch.nn.Module, family: Family, rows: Sequence[Row]) -> None:
    (completion,) = decode(model, family, rows[:1], max_new_tokens=3, batch_size=1)
    assert not completion.finished and len(completion.ids) == 3


def test_decoding_stops_where_the_perception_closes() -> None:
    family = Qwen3VL()  # A model that has learned to close it.
    model, codec = family.load().eval(), family.codec()
    many = [family.prompt(one.prompt) for one in samples(Sudoku(), 3)]
    closing = codec.grammar.close_perception
    stopped = decode(model, family, many, max_new_tokens=60, batch_size=3, stop=closing)
    for whole, early in zip(decode(model, family, many, max_new_tokens=60, batch_size=3), stopped, strict=True):
        assert len(early.ids) < len(whole.ids)
        assert early.ids == whole.ids[: len(early.ids)] and early.logprobs == whole.logprobs[: len(early.ids)]
        assert closing.encode() not in b"".join(codec.pieces(early.ids[:-1]))
        assert not early.finished and codec.read(early.ids, finished=False)[0].percept is not None


def test_a_text_ends_with_the_token_that_completes_it_however_it_is_cut() -> None:
    codec = SimpleNamespace(pieces=lambda ids: [[b"x", b"</", b"p", b">", b">y"][token] for token in ids])
    stop = ends_with(codec, "</p>")
    assert [stop(ids) for ids in ([0], [1, 2], [1, 2, 3], [0, 1, 2, 4], [1, 0, 2, 3])] == [False, False, True, True, False]
