"""A run that diverges keeps the batches of that step, and `percasym replay` recomputes them at the last checkpoint."""

from __future__ import annotations

import json
import math
import os
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


def test_a_dump_of_others_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """The files of a run that somebody passed on: nothing hangs, and each is one sentence."""
    import torch

    from percasym.config.resolve import composed
    from percasym.models.base import Batch
    from percasym.training.divergence import save_batches, save_metrics

    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    record = composed(["scale=smoke"], Path(__file__).resolve().parents[2] / "conf").record
    (run / "config.yaml").write_text(json.dumps(record))
    (run / "meta.json").write_text('{"id": "0", "status": "failed", "seconds": 0.0}')
    ids = torch.full((1, 4), 10**6)

    def replayed() -> str:
        assert cli.main(["replay", str(run)]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        return said

    save_batches(run, 0, [Batch(ids=ids, mask=torch.ones_like(ids), labels=torch.tensor([[0, 0, 1, 1]]))])
    save_metrics(run, 3, {"balance/weight": 0.5})
    assert f"The batches in {run / 'diverged'} do not fit the model of the run (" in replayed()
    save_metrics(run, 3, {})
    assert "step.json has no balance/weight that is a number of a step (None)." in replayed()
    (run / "diverged" / "step.json").write_text("[1]")
    assert "step.json is no record of a step." in replayed()
    file = run / "diverged" / "batches_rank0.safetensors"
    for content, reason in ((b"x" * 100, "holds no batches of a step ("), (None, "rank0.safetensors is a pipe, not a regular file.")):
        file.unlink()
        os.mkfifo(file) if content is None else file.write_bytes(content)
        assert reason in replayed()
