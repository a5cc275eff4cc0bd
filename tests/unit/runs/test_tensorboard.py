"""TensorBoard's events, read back with TensorBoard's own reader: the numbers of metrics.jsonl under the same names."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

from percasym.app.tensorboard import TensorboardTracker
from percasym.config.resolve import composed
from percasym.config.schema import ConfigError
from percasym.runs.identity import TENSORBOARD
from percasym.runs.rundir import RunDirectory

pytest.importorskip("tensorboard")
ROOT = Path(__file__).resolve().parents[3]


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Step and value of every event of a run, by tag."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import TENSORS, EventAccumulator
        from tensorboard.util.tensor_util import make_ndarray

        events = EventAccumulator(str(run / TENSORBOARD), size_guidance={TENSORS: 0})
        events.Reload()
        found = {tag: [(event.step, make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)] for tag in events.Tags()["tensors"]}
    return {tag: [(step, float(value)) for step, value in values if value.shape == ()] for tag, values in found.items()}


def in_file(run: Path) -> dict[str, list[tuple[int, float]]]:
    """The same of metrics.jsonl."""
    found: dict[str, list[tuple[int, float]]] = {}
    for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()):
        for name, value in line.items():
            if name not in ("step", "not_finite") and value is not None:
                found.setdefault(name, []).append((line["step"], pytest.approx(value)))
    return found


def numbers(run: Path) -> dict[str, list[tuple[int, float]]]:
    return {tag: values for tag, values in scalars(run).items() if values}


def test_events_are_the_numbers_of_the_file_under_the_same_names(tmp_path: Path, evaluated: dict) -> None:
    run = RunDirectory.open(tmp_path, {"seed": 0}, tracker=TensorboardTracker())
    run.samples("test", 0, [evaluated])
    run.log(0, {"eval/perception": 0.25, "eval/perception/lo": 0.2})
    run.log(1, {"loss/perception": 1.5, "grad/cosine": float("nan")})
    run.log(2, {"loss/perception": 1.25})
    run.finish({"after": {}})
    assert numbers(tmp_path) == in_file(tmp_path)
    assert set(numbers(tmp_path)) == {"eval/perception", "eval/perception/lo", "loss/perception"}
    assert {"samples/test/text_summary", "summary/text_summary", "config/text_summary"} <= set(scalars(tmp_path))


def test_a_resumed_run_continues_and_nothing_of_an_undone_step_remains(tmp_path: Path) -> None:
    tracker = TensorboardTracker()
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "lr": 0.5}\n{"step": 2, "lr": 0.25}\n')
    first = tracker.start(directory=tmp_path, identity="x", config={}, num_lines=2)
    first.log(3, {"lr": 0.125})  # Killed here; the checkpoint of step 2 knows nothing of it.
    first._writer.close()
    again = tracker.start(directory=tmp_path, identity="x", config={}, num_lines=2)
    again.log(3, {"lr": 0.0625})
    again.finish({}, failed=False)
    assert numbers(tmp_path) == {"lr": [(1, 0.5), (2, 0.25), (3, 0.0625)]}


def test_the_option_is_composed_and_a_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert composed(["tracker=tensorboard"], ROOT / "conf").tracker == TensorboardTracker()
    monkeypatch.setattr("percasym.app.tensorboard.find_spec", lambda name: None)
    sentence = r"needs the tensorboard package\. Run `pip install percasym\[tensorboard\]`, or choose tracker=none"
    with pytest.raises(ConfigError, match=sentence):
        composed(["tracker=tensorboard"], ROOT / "conf")


def test_a_wrong_option_is_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"tracker\.flush_seconds must be at least 1, got 0\."):
        TensorboardTracker(flush_seconds=0)
