"""Grade the text of a response, wherever it was generated.

    from percasym import Sudoku, SampleKey, grade

    sample = Sudoku().sample(SampleKey(task="sudoku", split="test", seed=0, index=0))
    grade(Sudoku(), sample, "<perception>...</perception> ... <answer>...</answer>").perception
"""

from __future__ import annotations

from percasym import metrics
from percasym.spans.grammar import Grammar
from percasym.tasks.base import Task
from percasym.types import Completion, Grade, Rollout, Sample


def grade(task: Task, sample: Sample, response: str, *, finished: bool = True) -> Grade:
    """The grade of a response: a (`outcome`), a_p (`perception`, `perception_graded`), `faithful`, and its faults.

    - task, sample: the sample that was answered, and the task that made it.
    - response: the text that was generated, without special tokens.
    - finished: False where the token limit came before the end of sequence, which is a fault.

    Grading is strict, as in `percasym.metrics`: a response is one perception, then reasoning that ends in one answer.

    >>> from percasym.tasks.sudoku.task import Sudoku
    >>> from percasym.types import SampleKey
    >>> sample = Sudoku().sample(SampleKey(task="sudoku", split="test", seed=0, index=0))
    >>> own = sample.demonstration
    >>> found = grade(Sudoku(), sample, own.perception + own.reasoning)
    >>> found.outcome, found.perception, grade(Sudoku(), sample, "It is 4.").faults[0].name
    (True, True, 'no_perception')
    """
    read = Grammar().read(response.encode(errors="surrogateescape"), finished=finished)
    completion = Completion(ids=(), logprobs=None, finished=finished)
    return metrics.grade(task, sample.truth, Rollout(prompt=sample.prompt, completion=completion, response=read, labels=()))
