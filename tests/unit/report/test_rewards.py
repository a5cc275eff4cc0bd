"""The RL part of a report: advantages by outcome, rewards over training, correlation of rewards with perception."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from percasym.diagnosis.diagnose import diagnose
from percasym.diagnosis.rollout_file import RolloutGroup, record_group
from percasym.report.load import load_runs
from percasym.report.publish import publish
from percasym.report.rewards import recorded_rewards, reward_tables, scatter
from percasym.report.study import study_of
from percasym.report.style import canvas
from percasym.report.training_figures import advantage_bars, advantages, dynamics
from percasym.report.words import percent
from percasym.runs.rundir import RunDirectory
from percasym.spans.grammar import Grammar
from percasym.statistics import proportion
from percasym.types import Completion, Estimate, Grade, Prompt, Rollout, SampleKey, Span
from tests.unit.report.test_page import dumped, needs_browser, title

READ = """
const canvas = document.querySelector("canvas[data-figure=rewards]");
canvas.focus();
canvas.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight", bubbles: true, cancelable: true}));
const drawn = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some(Boolean);
document.title = `${drawn}|${document.getElementById("read").textContent}`;
"""
Sibling = tuple[bool, bool, float]
"""Whether its percept and its answer are right, and its advantage."""


def group(index: int, siblings: Sequence[Sibling]) -> RolloutGroup:
    """The rollouts of one prompt; `consensus` is 1 where the percept is right."""
    prompt = Prompt(key=SampleKey(task="sudoku", split="train_rl", seed=0, index=index), image=None, question='"grades": {}')
    response = Grammar().read(b'<perception>12</perception> "advantage": 9 <answer>7</answer>')
    completion = Completion(ids=(1, 2), logprobs=None, finished=True)
    rollout = Rollout(prompt=prompt, completion=completion, response=response, labels=(Span.perception, Span.reasoning))
    return RolloutGroup(
        truth="12",
        puzzle=f"row {index}",
        rollouts=(rollout,) * len(siblings),
        grades=tuple(
            Grade(perception=perception, perception_graded=float(perception), outcome=right, faithful=None, faults=())
            for perception, right, _ in siblings
        ),
        rewards={"consensus": tuple(float(perception) for perception, _, _ in siblings)},
        labelled=frozenset(),
        advantages=tuple(advantage for _, _, advantage in siblings),
        reasoning=None,
    )


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """The outcome alone, and perception at w = .5: two steps of recorded rollouts each."""
    for name, advantage in (("none", -1.0), ("fixed0.5", 0.25)):
        run = RunDirectory.open(
            tmp_path / "s" / f"sudoku-qwen3vl-rl-{name}" / "seed0",
            {"seed": 0, "study": "s", "balance": {"_target_": f"percasym.balance.{name[:5]}.X"}},
        )
        one = Estimate(mean=0.5, ci95=(0.4, 0.6), n=4)
        for step in (1, 2):
            run.log(step, {"balance/weight": 0.5, "reward/outcome/mean": 0.25 * step, "reward/total/zero_variance": 0.5})
            siblings = [(True, True, 1.0), (True, False, advantage * step), (False, True, 0.5), (False, False, 0.0)]
            run.samples("rollouts", step, [record_group(group(index, siblings)) for index in range(2)])
        run.finish({part: {"end_to_end": one, "perception": one, "reasoning": one} for part in ("before", "after", "gain")})
    return tmp_path / "s"


def test_advantages_are_averaged_by_percept_and_answer(study: Path) -> None:
    (both,) = study_of(load_runs(study), "s").groups
    found = {cell.label: advantages(cell) for cell in both.cells}
    # Two steps of two prompts each; that at w = .5 is 0.25 at step 1 and 0.5 at step 2. The last kind has advantages of 0 only.
    assert found["0.5"] == {(True, True): [1.0] * 4, (True, False): [0.25, 0.25, 0.5, 0.5], (False, True): [0.5] * 4}
    assert found["none"][True, False] == [-1.0, -1.0, -2.0, -2.0]
    figure = advantage_bars([both])
    assert figure is not None
    (axes,) = figure.axes
    heights = [bar.get_height() for bar in axes.containers[0]]
    assert heights == [1.0, -1.5, 0.5], "bars are means of the first cell: those of the outcome alone"


def test_a_report_of_reinforcement_learning_has_its_figures_and_its_table(study: Path, tmp_path: Path) -> None:
    published = publish(load_runs(study), tmp_path / "out")
    drawn = {path.stem for path in (tmp_path / "out").glob("*.svg")}
    assert {"payment", "credit", "rewards"} <= drawn
    page, text = published.page.read_text(), (tmp_path / "out" / "report.md").read_text()
    assert "Numbers: rewards" in page and '<th scope="row">consensus</th>' in page
    assert "| consensus | 8 | 0% |" in text
    assert "sudoku-qwen3vl-rl-none/seed0/rollouts_000002.jsonl" in text
    assert "2 prompts say too little to recommend a reward" in text


def test_runs_without_rollouts_have_no_figure_of_them(cell_run, tmp_path: Path) -> None:
    cell_run(tmp_path / "s", "none", 0, 0.5)
    groups = study_of(load_runs(tmp_path), "s").groups
    assert advantage_bars(groups) is None
    assert "Advantage by percept and answer: it needs a run of paradigm=rl" in " ".join(
        publish(load_runs(tmp_path), tmp_path / "out").left_out
    )


def test_rollouts_without_advantages_or_rewards_are_left_out(study: Path) -> None:
    files = sorted(study.rglob("rollouts_*.jsonl"))
    for file in files:
        records = [json.loads(line) for line in file.read_text().splitlines()]
        for record in records:
            for rollout in record["rollouts"]:
                rollout["advantage"], rollout["rewards"] = None, {}
        file.write_text("".join(json.dumps(record) + "\n" for record in records))
    groups = study_of(load_runs(study), "s").groups
    assert [advantages(cell) for group in groups for cell in group.cells] == [{}, {}]
    assert advantage_bars(groups) is None
    assert recorded_rewards(groups) is None


def test_a_reward_that_never_scored_is_drawn_without_a_correlation(tmp_path: Path) -> None:
    silent = [replace(group(index, [(True, True, 1.0), (False, False, 0.0)]), rewards={"consensus": (None, None)}) for index in range(2)]
    scatter(silent, diagnose(silent), tmp_path / "rewards.png")
    assert (tmp_path / "rewards.png").stat().st_size > 1000
    (table, *_) = reward_tables(diagnose(silent))
    assert [list(column.cells) for column in table.columns][3:5] == [["-"], ["-"]]


def test_panels_that_are_left_over_are_removed() -> None:
    with canvas(3, columns=2) as (figure, panels):
        assert len(panels) == len(figure.axes) == 3


def test_a_group_that_did_not_log_a_number_has_an_empty_panel(tmp_path: Path) -> None:
    for task, key in (("sudoku", "balance/weight"), ("graph_coloring", "grad/norm")):
        config = {
            "seed": 0,
            "study": "s",
            "task": {"_target_": f"percasym.tasks.{task}.X"},
            "balance": {"_target_": "percasym.balance.none.X"},
        }
        run = RunDirectory.open(tmp_path / "s" / f"{task}-qwen3vl-sft-none" / "seed0", config)
        run.log(1, {key: 0.5})
        run.log(2, {key: float("nan")})
        run.finish({})
    groups = study_of(load_runs(tmp_path), "s").groups
    figure = dynamics(groups, {"balance/weight": "weight", "grad/norm": "norm"})
    assert figure is not None
    drawn = [[len(line.get_xdata()) for line in axes.lines] for axes in figure.axes]
    assert sorted(drawn) == [[], [], [1], [1]], "two panels for each group, one of them empty; a number that is not finite is no point"
    assert dynamics(groups, {"reward/mean": "reward"}) is None


def test_the_page_draws_the_scatter_of_rewards_with_prompts_that_hovering_reads(study: Path, tmp_path: Path) -> None:
    published = publish(load_runs(study), tmp_path / "out")
    page = published.page.read_text()
    assert '<canvas data-figure="rewards" data-panel="0"' in page and "<img" not in page, "no figure is a picture any more"
    data = json.loads(re.search(r'id="figure-data">(.*?)</script>', page, flags=re.DOTALL)[1])  # type: ignore[index]
    (panel,) = data["rewards"]
    line, prompts, rollouts = panel["series"]
    assert (panel["title"], panel["note"]) == ("consensus", "r = 1.00, within 1.00, across -"), "two prompts have no interval"
    assert len(rollouts["points"]) == 8 and all(abs(point["x"] - point["y"]) < 0.1 for point in rollouts["points"]), "moved by the jitter"
    # Both prompts have two right percepts of four, and the same score: one point for both. 2 of 4 in each of two puzzles.
    (point,) = prompts["points"]
    assert (point["x"], point["y"]) == (0.5, 0.5)
    share = percent(proportion([True, True, False, False] * 2, [0] * 4 + [1] * 4))
    assert point["tip"] == ["score 0.50", f"a_p {share}", "n = 8 rollouts of 2 prompts, seed 0"]
    assert [(end["x"], end["y"]) for end in line["points"]] == [(0, 0), (1, 1)]
    assert 'data-toggle="g0c0"' in page and '<p class="panel-note">r = 1.00' in page


@needs_browser
def test_the_scatter_of_rewards_is_drawn_and_read_by_arrow_keys(study: Path, tmp_path: Path) -> None:
    page = publish(load_runs(study), tmp_path / "out").page
    assert title(dumped(page, tmp_path, READ)) == "true|consensus: score 0.50, a_p 50.0 [2, 98], n = 8 rollouts of 2 prompts, seed 0"
