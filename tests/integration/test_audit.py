"""`percasym audit` says before training what the first step of training measures."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from percasym.app.audit import audit
from percasym.balance.base import Gramian, SpanStats
from percasym.cli import main as cli
from percasym.config.resolve import composed
from percasym.integrations.audit import TRAINER
from percasym.training.audit import Audit, Coupling
from percasym.training.span_gradients import Share

CELL = Path("multirun/main/sudoku-qwen3vl-sft-ngdiff-smoke/seed0")


@pytest.fixture
def found(blank: Path, train_py) -> Audit:
    """The audit of four samples on a blank model."""
    import torch

    return audit(composed(["scale=smoke", f"model.path={blank}"], train_py.CONF), num_samples=4, device=torch.device("cpu"))


def test_the_audit_equals_the_first_step_of_training_on_the_same_rows(found: Audit, command, blank: Path, tmp_path: Path) -> None:
    words = ["paradigm.steps=1", "paradigm.batch_size=4", "evaluation.num_samples=1", "evaluation.max_new_tokens=2", "engine=torch"]
    answer = command("scale=smoke", "balance=ngdiff", f"model.path={blank}", *words)
    assert answer.code == 0, answer.err
    summary = json.loads((tmp_path / CELL / "summary.json").read_text())
    assert Share(**summary["share"]) == found.share
    step = next(line for line in map(json.loads, (tmp_path / CELL / "metrics.jsonl").read_text().splitlines()) if "grad/cosine" in line)
    assert found.stats.gramian is not None
    assert (step["balance/weight"], step["grad/cosine"]) == (found.ngdiff, found.stats.gramian.cosine)
    assert (step["grad/perception"], step["grad/reasoning"]) == found.stats.gramian.norms
    assert (step["loss/perception"], step["loss/reasoning"]) == found.stats.losses


def test_the_groups_add_up_to_the_whole(found: Audit) -> None:
    whole, groups = found.stats.gramian, found.groups.values()
    assert whole is not None
    assert set(found.groups) == {"vision", "projector", "language"}
    for product in ("perception", "reasoning", "cross"):
        assert math.isclose(sum(getattr(group, product) for group in groups), getattr(whole, product), rel_tol=1e-6)
    assert all(min(group.norms) > 0 for group in groups), "both spans reach every part"


def made_up(language: tuple[float, float], **others: tuple[float, float]) -> Audit:
    """Of 10 perception and 90 reasoning tokens, with these gradient norms (perception, reasoning) in each part."""
    norms = {"language": language, **others}
    groups = {name: Gramian(perception=p * p, reasoning=r * r, cross=0.0) for name, (p, r) in norms.items()}
    total = Gramian(perception=sum(g.perception for g in groups.values()), reasoning=sum(g.reasoning for g in groups.values()), cross=0.0)
    stats = SpanStats(step=0, num_steps=1, counts=(10, 90), losses=(1.0, 1.0), gramian=total)
    return Audit(stats=stats, groups=groups, chance=math.log(10), data=None, num_samples=8)  # type: ignore[arg-type]


def test_a_model_that_does_worse_than_a_blind_guess_is_said_to() -> None:
    # 10 and 90 tokens; ln 10 = 2.3. With losses of 3 and 2 the mean is 2.1, and with 3 and 2.6 it is 2.64.
    found = made_up((1.0, 1.0))
    assert found.caution() is None
    assert replace(found, stats=replace(found.stats, losses=(3.0, 2.0))).caution() is None
    caution = replace(found, stats=replace(found.stats, losses=(3.0, 2.6))).caution() or ""
    assert caution.startswith("A token costs 2.6 nats here, and a blind guess 2.3: this model has never met such texts")


def test_advice_follows_the_language_model() -> None:
    # 10 * 1 / (10 * 1 + 90 * 1) = .10 in the language model. NGDiff: 1 / (1 + 1 / 1) = .5; between it and .1: sqrt(.1 * .5) = .22.
    small = made_up((1.0, 1.0)).advice()
    assert small.startswith("Perception has 10% of the language model's gradient. In our own pairs of runs")
    assert "cost 1 to 22 points of a_r" in small, "what balancing costs"
    assert "balance=ngdiff, which would start at w = 0.50" in small
    assert "balance=fixed balance.weight=0.22" in small
    assert "starved" not in small
    assert "model.freeze" not in small
    assert "But vision can learn to see at any weight: try model.freeze=[vision] too." in made_up((1.0, 1.0), vision=(9.0, 1.0)).advice()
    # 10 * 9 / (10 * 9 + 90 * 1) = .50
    assert made_up((9.0, 1.0)).advice().startswith("Perception has 50% of the language model's gradient; at 36 % balancing")
    assert made_up((0.0, 1.0)).advice().startswith("One span has no gradient here")


def test_advice_is_in_the_words_of_the_trainer_that_asks() -> None:
    asked = replace(made_up((1.0, 1.0), vision=(9.0, 1.0)), spelling=TRAINER)
    assert 'BalancedTrainer(balance="none") beside balance="ngdiff", which would start at w = 0.' in asked.advice()
    assert "balance=percasym.Fixed(weight=0." in asked.advice()
    assert asked.advice().endswith("try freezing vision (requires_grad_(False)) too.")
    none = replace(made_up((0.0, 1.0)), spelling=TRAINER).advice()
    wordy = replace(asked, stats=replace(asked.stats, losses=(3.0, 2.6))).caution() or ""
    for text in (asked.advice(), none, wordy, replace(made_up((9.0, 1.0)), spelling=TRAINER).advice()):
        assert not re.search(r"model\.|balance=[a-z]+[ ;,.]|balance\.", text.replace("percasym.Fixed", "")), text


def test_the_outlook_follows_what_a_right_percept_is_worth() -> None:
    found = replace(made_up((1.0, 1.0)), num_steps=300)
    assert "what a right percept is worth: run percasym evaluate on this model, and give its folder as --evaluation." in found.advice()
    assert "(answers=)" in replace(found, spelling=TRAINER).outlook()
    answers = [(True, True)] * 24 + [(True, False)] * 6 + [(False, True)] * 6 + [(False, False)] * 24
    known = replace(found, coupling=Coupling.of(answers))  # .8 - .2 = .6, times 300: 180.
    assert "30 of 60 answers before training have a right percept; 80% of those are right and 20% of the others" in known.advice()
    expected = "a difference of +0.60. Times 300 steps that is 180.0, and our rule expects balance=ngdiff to raise a above 118.2"
    assert expected in known.advice()
    assert 'expects balance="ngdiff" to raise' in replace(known, spelling=TRAINER).outlook()
    assert replace(known, num_steps=5000).outlook().endswith("was measured at 300 to 600 steps, and this training has 5000.")
    assert replace(known, num_steps=None).outlook().endswith("depends on the steps of the training (paradigm.steps).")
    few = replace(found, coupling=Coupling.of(answers[:49])).outlook()
    assert few.startswith("30 of 49 answers before training have a right percept; with fewer than 20 on a side")
    assert "a difference of +0.60" in replace(made_up((9.0, 1.0)), num_steps=300, coupling=known.coupling).advice()


def test_the_answers_of_an_evaluation_are_read_and_those_of_others_refused(blank: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = ["task=sudoku", "evaluation.num_samples=3", "evaluation.max_new_tokens=4"]
    assert cli.main(["evaluate", str(blank), *tiny, "--out", "mine"]) == 0
    asked = ["audit", "task=sudoku", "--samples", "2", "--evaluation", "mine"]
    capsys.readouterr()
    assert cli.main([*asked, f"model.path={blank}"]) == 0
    assert "0 of 3 answers before training have a right percept; with fewer than 20" in " ".join(capsys.readouterr().out.split())
    for words, sentence in (
        ([f"model.path={blank}", "task.givens=[4,4]"], "The answers in mine have task.givens="),
        ([], "The answers in mine have weights of "),
        ([f"model.path={blank}", "task=graph_coloring"], "The answers in mine have task._target_="),
    ):
        assert cli.main([*asked, *words]) == 2
        shown = capsys.readouterr().err
        assert shown.startswith(sentence) and shown.count("\n") == 1, shown
    recorded = Path("mine/config.yaml").read_text()
    Path("mine/config.yaml").write_text(re.sub(r"(?m)^  size: 4\n", "", recorded, count=1))  # As a version without that option recorded it.
    assert Path("mine/config.yaml").read_text() != recorded
    assert cli.main([*asked, f"model.path={blank}"]) == 0, capsys.readouterr().err
    capsys.readouterr()
    records = next(Path("mine/samples").glob("test_*.jsonl"))
    records.write_text(records.read_text().replace('"perception":', '"another":'))
    assert cli.main([*asked, f"model.path={blank}"]) == 2
    assert capsys.readouterr().err.startswith("mine has no graded answers.")


WRONG = {
    "no evaluation": (["--evaluation", "nowhere"], "nowhere is not a run directory: it has no config.yaml."),
    "no file": (["task=jsonl", "task.path=nowhere.jsonl"], "There is no file nowhere.jsonl. Give task.path a file of "),
    "no path": (["task=jsonl"], "task.path is not set. Write task.path=VALUE: a file of JSON lines, a JSON array or Parquet"),
    "no samples": (["--samples", "0"], "--samples must be at least 1, got 0."),
    "no demonstrations": (["paradigm=rl"], "percasym audit measures demonstrations, and paradigm=rl has none. Leave paradigm=rl out."),
    "no checkpoint": (["model.path=/nowhere/to/be/found"], "No checkpoint directory at /nowhere/to/be/found."),
    "no such option": (["task.sise=4"], "There is no option task.sise; did you mean task.size?"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_input_is_one_sentence(what: str, capsys: pytest.CaptureFixture) -> None:
    words, begins = WRONG[what]
    assert cli.main(["audit", "scale=smoke", *words]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(begins), shown.err
    assert shown.err.count("\n") == 1


def test_a_reward_that_must_draw_is_refused_before_training(command, blank: Path, tmp_path: Path) -> None:
    answer = command("paradigm=rl", "scale=smoke", "task=jsonl", "task.path=rows.jsonl", "reward=rerender", f"model.path={blank}")
    assert answer.code == 2
    assert answer.err.startswith("reward=rerender needs a task that can draw a percept; collected data cannot. Choose among oracle, ")
    assert list(tmp_path.iterdir()) == []
