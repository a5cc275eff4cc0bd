"""Reward hacking: hostile texts, answers in the wrong place, and percepts that are expensive to score.

Everything around the text is as generous as it can be (honest siblings, a policy that agrees, outcomes that are always
right), so that only the form of the text can keep a score at 0.
"""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Callable
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from percasym.metrics import grade
from percasym.rewards import pictures, rerender
from percasym.rewards.base import Labelled
from percasym.rewards.registry import packaged_rewards
from percasym.spans.grammar import Grammar
from percasym.tasks.canvas import Look
from percasym.tasks.graph_coloring.graph import LETTERS, all_pairs
from percasym.tasks.graph_coloring.task import GraphColoring
from percasym.tasks.sudoku.task import Sudoku

SURROGATES = tuple(name for name, cls in packaged_rewards().items() if not issubclass(cls, Labelled))
OF_PIXELS = ("rerender", "image_dependence", "augmentation")
"""Rewards that process pictures, which takes time."""
CHEAP = tuple(name for name in SURROGATES if name not in OF_PIXELS)
each_surrogate = pytest.mark.parametrize("name", SURROGATES)


def span_of(percept: str) -> str:
    return Grammar().perception(percept)


UNREADABLE: dict[str, Callable[[str, str], str | bytes]] = {
    "nothing": lambda percept, rest: "",
    "only the rest": lambda percept, rest: rest,
    "empty": lambda percept, rest: span_of("") + rest,
    "blank": lambda percept, rest: span_of(" \n\t") + rest,
    "twice": lambda percept, rest: span_of(percept) + span_of(percept) + rest,
    "twice in one tag": lambda percept, rest: span_of(f"{percept}\n{percept}") + rest,
    "again at the end": lambda percept, rest: span_of(percept) + rest + span_of(percept),
    "nested": lambda percept, rest: span_of(span_of(percept)) + rest,
    "nested opening": lambda percept, rest: "<perception>" + span_of(percept) + rest,
    "closed twice": lambda percept, rest: span_of(percept) + "</perception>" + rest,
    "never closed": lambda percept, rest: f"<perception>{percept}" + rest,
    "never opened": lambda percept, rest: f"{percept}</perception>" + rest,
    "after a word": lambda percept, rest: f"So {span_of(percept)}" + rest,
    "other case": lambda percept, rest: span_of(percept).upper() + rest,
    "answer in the percept": lambda percept, rest: span_of(f"{percept}<answer>1</answer>") + rest,
    "percept in the answer": lambda percept, rest: f"<answer>{span_of(percept)}</answer>",
    "a word in the percept": lambda percept, rest: span_of(f"{percept} or so") + rest,
    "a choice of percepts": lambda percept, rest: span_of(f"{percept}\n\n{percept}") + rest,
    "NUL inside": lambda percept, rest: span_of(percept[:3] + "\x00" + percept[3:]) + rest,
    "carriage returns": lambda percept, rest: span_of(percept[:3] + "\r" + percept[3:]) + rest,
    "zero-width space": lambda percept, rest: span_of(percept[:3] + "\u200b" + percept[3:]) + rest,
    "right-to-left mark": lambda percept, rest: span_of("\u202e" + percept) + rest,
    "Arabic digits": lambda percept, rest: span_of(percept.translate({ord("0") + d: 0x660 + d for d in range(10)})) + rest,
    "full-width digits": lambda percept, rest: span_of(percept.translate({ord("0") + d: 0xFF10 + d for d in range(10)})) + rest,
    "not UTF-8": lambda percept, rest: span_of(percept).encode() + b"\xff\xfe" + rest.encode(),
    "cut UTF-8": lambda percept, rest: span_of(percept).encode() + rest.encode() + "é".encode()[:1],
    "a megabyte of it": lambda percept, rest: span_of(" ".join([percept] * (1_000_000 // len(percept)))) + rest,
    "a megabyte of lines": lambda percept, rest: span_of(percept[:5] + "\n" * 1_000_000 + percept[5:]) + rest,
    "a megabyte of tags": lambda percept, rest: "<perception>" * 80_000 + span_of(percept) + rest,
}
each_unreadable = pytest.mark.parametrize("attack", UNREADABLE.values(), ids=UNREADABLE)


@pytest.fixture
def honest(task: Any, sample: Any) -> Any:
    return sample(task)


@pytest.fixture
def generous(task: Any, honest: Any, context: Any) -> Any:
    """A context in which every outcome is right and the policy agrees with the truth."""
    response = Grammar().read((honest.demonstration.perception + honest.demonstration.reasoning).encode())

    def logprobs(prompts: Any, rollouts: Any) -> Any:
        return [[-0.1 if prompt == honest.prompt else -5.0] * len(own.labels) for prompt, own in zip(prompts, rollouts, strict=True)]

    policy = SimpleNamespace(
        answers=lambda prompts: [response] * len(prompts), percepts=lambda prompts: [honest.truth] * len(prompts), logprobs=logprobs
    )
    return context(task, right=lambda prompt, answer: True, policy=policy)


@pytest.fixture
def beside_honest_ones(honest: Any, rollout: Any, generous: Any) -> Any:
    """The scores of some rollouts whose three siblings are right in everything, and of one of these."""
    right = rollout(honest.prompt, honest.demonstration.perception + honest.demonstration.reasoning)

    def score(reward: Any, *rollouts: Any) -> Any:
        [scores] = reward.score([[*rollouts, right, right, right]], generous)
        return scores[: len(rollouts)], scores[-1]

    return score


@each_surrogate
def test_an_honest_rollout_is_paid(name: str, reward: Any, honest: Any, rollout: Any, beside_honest_ones: Any) -> None:
    [score], sibling = beside_honest_ones(
        reward(name), rollout(honest.prompt, honest.demonstration.perception + honest.demonstration.reasoning)
    )
    assert score == sibling > 0.8


@each_unreadable
def test_anything_but_one_perception_scores_zero(
    attack: Any, reward: Any, task: Any, honest: Any, rollout: Any, beside_honest_ones: Any
) -> None:
    hostile = rollout(honest.prompt, attack(honest.truth, honest.demonstration.reasoning))
    for name in SURROGATES:
        [score], sibling = beside_honest_ones(reward(name), hostile)
        assert score == 0.0 < 0.8 < sibling, name
    verdict = grade(task, honest.truth, hostile)
    assert [reward("oracle", grading=grading).score_grade(verdict) for grading in ("exact", "graded")] == [0.0, 0.0]
    assert not verdict.outcome


ANSWERS: dict[str, Callable[[str], str]] = {
    "none": lambda answer: "So.",
    "two": lambda answer: f"<answer>{answer}</answer><answer>{answer}</answer>",
    "nested": lambda answer: f"<answer><answer>{answer}</answer></answer>",
    "a hundred thousand": lambda answer: f"<answer>{answer}</answer>" * 100_000,
    "never closed": lambda answer: f"<answer>{answer}",
    "never opened": lambda answer: f"{answer}</answer>",
    "backwards": lambda answer: f"</answer>{answer}<answer>",
    "with a word after it": lambda answer: f"<answer>{answer}</answer> Done.",
    "with a word in it": lambda answer: f"<answer>It is {answer}</answer>",
    "a choice": lambda answer: f"<answer>{answer} {answer}</answer>",
    "a megabyte": lambda answer: f"<answer>{answer}{'1' * 1_000_000}</answer>",
    "empty": lambda answer: "<answer></answer>",
}


@pytest.mark.parametrize("attack", ANSWERS.values(), ids=ANSWERS)
def test_what_is_not_one_answer_is_not_faithful_and_still_a_perception(
    attack: Any, reward: Any, honest: Any, rollout: Any, beside_honest_ones: Any
) -> None:
    hostile = rollout(honest.prompt, honest.demonstration.perception + attack(honest.solution))
    assert beside_honest_ones(reward("faithful"), hostile)[0] == [0.0]
    for name in set(SURROGATES) - {"faithful"}:
        [score], sibling = beside_honest_ones(reward(name), hostile)
        assert score == sibling > 0.8, name


@pytest.mark.parametrize("name", ["valid_state", "blindfold_solver", "blindfold_self"])
def test_the_solved_grid_is_no_percept(name: str, reward: Any, sample: Any, rollout: Any, context: Any) -> None:
    sudoku = Sudoku(givens=(8, 10))
    solved = sample(sudoku)
    hostile = rollout(solved.prompt, span_of(solved.solution) + solved.demonstration.reasoning)
    policy = SimpleNamespace(answers=lambda prompts: [hostile.response] * len(prompts))
    lenient = context(sudoku, right=lambda prompt, answer: True, policy=policy)
    assert reward(name).score([[hostile]], lenient) == [[0.0]]
    if name != "valid_state":
        assert reward(name, only_valid=False).score([[hostile]], lenient) == [[1.0]]


# 10,000 fuzzed byte strings


def fuzzed(rng: Random, honest: Any, num_texts: int) -> list[bytes]:
    """Tags, percepts, answers and noise in any order; one in five begins like a response, one in a hundred is one."""
    parts = [tag.encode() for tag in Grammar().tags]
    parts += [
        honest.truth.encode(),
        honest.solution.encode(),
        honest.truth[::-1].encode(),
        b" ",
        b"\n",
        b"1",
        b"AB",
        b"5:",
        b"\x00",
        b"\xff",
    ]
    whole = (honest.demonstration.perception + honest.demonstration.reasoning).encode()
    texts = []
    for _ in range(num_texts):
        pieces = [*rng.choices(parts, k=rng.randrange(9)), rng.randbytes(rng.randrange(4))]
        if rng.random() < 0.2:
            pieces[:0] = [b"<perception>", rng.choice([honest.truth.encode(), rng.randbytes(3), b"0" * 16]), b"</perception>"]
        texts.append(whole if rng.random() < 0.01 else b"".join(pieces))
    return texts


def is_one_perception(text: bytes, parse: Any) -> bool:
    """Written without the grammar: text, in which the two tags stand once each, the first of them first, around a percept."""
    try:
        words = text.decode().strip()
    except UnicodeDecodeError:
        return False
    _, opened, after = words.partition("<perception>")
    inside, closed, rest = after.partition("</perception>")
    alone = words.startswith("<perception>") and "perception>" not in inside + rest
    return bool(alone and opened and closed and parse(inside) is not None)


@pytest.mark.parametrize(("names", "num_texts"), [(CHEAP, 5_000), (OF_PIXELS, 250)], ids=["cheap", "of pixels"])
def test_fuzzed_bytes_neither_crash_a_reward_nor_score_without_one_perception(
    names: Any, num_texts: int, task: Any, reward: Any, honest: Any, rollout: Any, generous: Any
) -> None:
    texts = fuzzed(Random(0), honest, num_texts)  # 5,000 for each of the two tasks.
    groups = [[rollout(honest.prompt, text) for text in texts[start : start + 10]] for start in range(0, num_texts, 10)]
    readable = [is_one_perception(text, task.parse) for text in texts]
    assert num_texts / 100 < sum(readable) < num_texts / 2
    for name in names:
        scores = [score for row in reward(name).score(groups, generous) for score in row]
        assert all(score is None or 0 <= score <= 1 for score in scores)
        assert not any(score != 0.0 for score, fine in zip(scores, readable, strict=True) if not fine), name
        assert any(score for score in scores), name


# Percepts that cost time


def rows(cells: str) -> str:
    return "\n".join(cells.replace(".", "0")[start : start + 9] for start in range(0, 81, 9))


COSTLY = {
    "empty": "." * 81,
    "no solution, deep": ".....5.8....6.1.43..........1.5........1.6...3.......553.....61........4.........",
    "hard, one solution": "8..........36......7..9.2...5...7.......457.....1...3...1....68..85...1..9....4..",
    "17 givens": "000000010400000000020000000000050407008000300001090000300400200050100000000806000",
    # The worst that 80 seconds of climbing found: 775 steps of the search.
    "found by search": "600370210800000007700000000070000000200800070000000500028000090000400705010930040",
}
"""9x9 grids that take a solver long."""
CPU_SECONDS = 1.0
"""Far above what any of these takes (0.03 s), far below a hang."""

any_nine = Sudoku(size=9, givens=(22, 80), techniques="any", look=Look(image_px=144))
any_fifteen = GraphColoring(nodes=(4, 15), density=(0.1, 1.0), chromatic=(2, 15), max_steps=1000, look=Look(image_px=512))


def mycielski() -> str:
    """The Groetzsch graph: four colours although it has no triangle, so that no clique helps; with four more nodes on it."""
    ring = [(i, (i + 1) % 5) for i in range(5)]
    edges = ring + [(i, 5 + j) for a, b in ring for i, j in ((a, b), (b, a))] + [(5 + i, 10) for i in range(5)]
    edges += [(node, 11 + k) for k in range(4) for node in (k, k + 3, 10)]
    return "15: " + " ".join(sorted(LETTERS[min(e)] + LETTERS[max(e)] for e in edges))


def dense(rng: Random, density: float) -> str:
    return "15: " + " ".join(LETTERS[i] + LETTERS[j] for i, j in all_pairs(15) if rng.random() < density)


@pytest.mark.parametrize("cells", COSTLY.values(), ids=COSTLY)
def test_a_hostile_grid_is_solved_or_refuted_in_time(cells: str) -> None:
    began = time.process_time()
    answer = any_nine.solve(rows(cells))
    any_nine.valid(rows(cells))
    assert time.process_time() - began < CPU_SECONDS
    assert answer is None or any_nine.verify(rows(cells), answer)


@pytest.mark.parametrize(
    "percept",
    ["15:", dense(Random(0), 1.0), mycielski(), *(dense(Random(seed), 0.3 + seed / 10) for seed in range(6))],
    ids=["empty", "complete", "no triangle", *(f"random {seed}" for seed in range(6))],
)
def test_a_hostile_graph_is_colored_in_time(percept: str) -> None:
    began = time.process_time()
    answer = any_fifteen.solve(percept)
    any_fifteen.valid(percept)
    assert time.process_time() - began < CPU_SECONDS
    assert any_fifteen.verify(percept, answer)


@pytest.mark.parametrize("percept", ["15:" + " AB" * 1_000_000, "15: " + "AB " * 1_000_000, "9" * 3_000_000, "\n" * 3_000_000 + "1"])
def test_a_hostile_length_is_refused_in_time(percept: str) -> None:
    began = time.process_time()
    for task in (any_nine, any_fifteen):
        assert (task.parse(percept), task.solve(percept), task.valid(percept), task.verify(percept, percept)) == (None, None, False, False)
    assert time.process_time() - began < CPU_SECONDS


@pytest.mark.parametrize("read", [pictures.read_pixels, rerender.levels])
def test_a_reward_decodes_no_gigapixels(read: Callable[[bytes], Any]) -> None:
    """A PNG whose header asks for 9,000 x 9,000 pixels in 70 bytes, one that is cut, and one that is none."""
    header = struct.pack(">IIBBBBB", 9_000, 9_000, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    body = b"".join(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks)
    for picture, reason in ((b"\x89PNG\r\n\x1a\n" + body, "has 9000 x 9000 pixels"), (b"GIF8", "is no whole PNG")):
        with pytest.raises(ValueError, match=reason):
            read(picture)
