"""A run that diverges keeps the batches of that step, and `percasym replay` recomputes them at the last checkpoint."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from percasym.cli import main as cli

TINY = [
    "scale=smoke", "engine=torch", "paradigm.steps=4", "paradigm.batch_size=2", "paradigm.micro_batch_size=1", "paradigm.save_every=1",
    "evaluation.num_samples=2", "evaluation.max_new_tokens=4", "balance=ngdiff", "hydra.run.dir=run",
]  # fmt: skip


@pytest.fixture
def diverged(command, blank: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Path, str, list[dict]]:
    """A run whose third step has a NaN gradient, its error message, and the steps of an undisturbed run."""
    from percasym.engine.engine import SpanEngine

    words = [*TINY, f"model.path={blank}"]
    assert command(*words, "hydra.run.dir=well").code == 0
    real, steps = SpanEngine.combine, []

    def combine(engine: SpanEngine, weights: dict) -> None:
        steps.append(len(steps))
        real(engine, {span: weight * (math.nan if len(steps) == 3 else 1.0) for span, weight in weights.items()})

    with monkeypatch.context() as patch:
        patch.setattr(SpanEngine, "combine", combine)
        answer = command(*words)
    assert answer.code == 2, answer.err
    well = [json.loads(line) for line in (tmp_path / "well" / "metrics.jsonl").read_text().splitlines()]
    return tmp_path / "run", answer.err.strip().splitlines()[-1], [line for line in well if "grad/norm" in line]


def test_the_batch_of_a_step_without_a_number_is_replayed(diverged, capsys: pytest.CaptureFixture) -> None:
    run, error, well = diverged
    assert (
        error
        == "grad/norm is nan at step 3. Its batches are in run/diverged: see percasym replay run, or choose a paradigm.lr below 0.001."
    )
    assert json.loads((run / "meta.json").read_text())["status"] == "failed"
    assert cli.main(["replay", str(run)]) == 0
    head, losses, gradients, rest = capsys.readouterr().out.strip().splitlines()
    assert head == "Step 3 diverged; its batches with the weights after step 2:"
    numbers = [float(number) for number in re.findall(r"(?<= )-?[0-9.e+-]+(?=[ ,)])", losses + " ")]
    third = well[2]  # The batch and the weights before it are good: these are the numbers of the undisturbed run.
    expected = [third[name] for name in ("loss/total", "loss/perception", "loss/reasoning")]
    assert numbers[:3] == pytest.approx(expected, rel=1e-4)
    found = [float(number) for number in re.findall(r"(?<= )-?[0-9.e+-]+(?=[ ,)])", gradients + " ")]
    assert found == pytest.approx([third[name] for name in ("grad/norm", "grad/perception", "grad/reasoning")], rel=1e-3)
    assert rest.strip() == "Every token's loss is finite."


def test_a_run_that_never_diverged_has_nothing_to_replay(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["replay", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"{tmp_path} is no run directory: it holds no config.yaml.\n"
