"""Three answers for each sample; the second is the rest of the first where that begins with p*."""

import pytest

from percasym import statistics
from percasym.config.settings import Evaluation
from percasym.models import locate
from percasym.models.qwen3vl import Qwen3VL
from percasym.rollout.native import NativeAnswers
from percasym.tasks.canvas import Look
from percasym.tasks.sudoku.task import Sudoku
from percasym.training import evaluate as module
from percasym.training.evaluate import EvalResult, evaluate
from percasym.types import Completion

EASY = Sudoku(size=4, givens=(12, 14), restate=True)
UNREADABLE = Sudoku(size=4, givens=(12, 14), restate=True, look=Look(contrast=(0.02, 0.02)))


@pytest.mark.parametrize(("task", "reused"), [(EASY, True), (UNREADABLE, False)])
def test_a_reused_answer_equals_a_decoded_one(task: Sudoku, reused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    family = Qwen3VL(path=locate.packaged("qwen3vl"))
    settings = Evaluation(num_samples=4, num_curve_samples=1, max_new_tokens=300, batch_size=3)
    advanced: list[int] = []
    greedy = NativeAnswers(family=family)
    greedy.refresh(family.load().eval())
    found = evaluate(greedy=greedy, family=family, task=task, settings=settings, advance=advanced.append)
    assert sum(advanced) == 3 * 4
    assert any(found.verdicts["perception"]) is reused  # Both kinds of samples are tested.
    monkeypatch.setattr(module, "_rest", lambda answer, prefix: None)
    decoded = evaluate(greedy=greedy, family=family, task=task, settings=settings)
    assert found.records == decoded.records


@pytest.mark.parametrize(
    ("ids", "finished", "rest"),
    [
        ((1, 2, 3, 9), True, (3, 9)),
        ((1, 2, 3), False, None),  # It met the limit: a forced beginning would leave it two tokens more.
        ((1, 4, 3, 9), True, None),
        ((1,), True, None),
    ],
)
def test_only_a_finished_answer_that_begins_with_the_forced_tokens_is_reused(
    ids: tuple[int, ...], finished: bool, rest: tuple[int, ...] | None
) -> None:
    found = module._rest(Completion(ids=ids, logprobs=tuple(float(i) for i in ids), finished=finished), (1, 2))
    assert (found and found.ids) == rest
    if found:
        assert found.logprobs == tuple(float(i) for i in found.ids)


def test_a_gain_has_its_contributions() -> None:
    before = EvalResult(
        verdicts={"end_to_end": [0, 0, 1, 0], "perception": [0, 0, 0, 1], "reasoning": [1, 0, 1, 0]}, puzzles=list("abcd"), records=()
    )
    after = EvalResult(
        verdicts={"end_to_end": [1, 1, 0, 1], "perception": [1, 1, 0, 1], "reasoning": [1] * 4}, puzzles=list("abcd"), records=()
    )
    gain = after.gain_over(before)
    found = {key: gain[key].mean for key in ("via_perception", "via_reasoning", "via_both", "otherwise")}
    assert found == {"via_perception": 0.25, "via_reasoning": 0.25, "via_both": 0.25, "otherwise": -0.25}
    assert sum(found.values()) == gain["end_to_end"].mean
    assert gain["via_both"] == statistics.change([0.0, 1.0, 0.0, 0.0], list("abcd"), reach=1.0)
    lacking = EvalResult(verdicts={"end_to_end": [True], "perception": [True], "reasoning": [None]}, puzzles=["a"], records=())
    assert lacking.gain_over(lacking)["via_perception"].n == 0
