"""docs/plans.md is what the code plans."""

from __future__ import annotations

import pytest

from percasym.models.locate import released_sizes
from percasym.plan.page import EIGHT, FAMILIES, HEAD, METHODS, ONE, PAGE, UTILISATION, Machine, fitted, page, row, step_time


def test_every_size_and_method_has_a_line_for_each_machine() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    for family, title in FAMILIES.items():
        for size in released_sizes(family):
            for method in METHODS:
                found = [line for line in lines if line.startswith(f"| {title} {size} | {method} |")]
                assert len(found) == 2, f"{title} {size}, {method}"
    assert PAGE.read_text(encoding="utf-8").startswith(HEAD.format(utilisation=round(100 * UTILISATION)))


@pytest.mark.parametrize(
    ("machine", "family", "size", "method"),
    [
        (EIGHT, "qwen3vl", "2B", "SFT, ngdiff"),
        (EIGHT, "internvl35", "38B", "SFT, ngdiff"),
        (ONE, "qwen3vl", "2B", "RL"),
        (ONE, "qwen3vl", "8B", "SFT, none"),
    ],
    ids=["8 GPUs", "the largest", "24 GB", "too large"],
)
def test_a_line_of_the_page_is_its_plan(machine, family: str, size: str, method: str) -> None:
    """If this fails, run `make docs`."""
    assert row(machine, family, size, method) in PAGE.read_text(encoding="utf-8").splitlines()


def test_the_page_is_its_head_and_the_table_of_each_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    written = PAGE.read_text(encoding="utf-8")
    tables = written.split("\n## ")[1:]

    def line(machine: Machine, family: str, size: str, method: str) -> str:
        (table,) = [table for table in tables if table.startswith(machine.title)]
        return next(line for line in table.splitlines() if line.startswith(f"| {FAMILIES[family]} {size} | {method} |"))

    monkeypatch.setattr("percasym.plan.page.row", line)
    assert page() + "\n" == written


def test_changes_are_tried_from_the_cheapest_on() -> None:
    found = fitted(EIGHT, "internvl35", "38B", "SFT, ngdiff")
    assert found.plan.fits and found.words == EIGHT.changes["sft"][-1]
    assert fitted(EIGHT, "qwen3vl", "2B", "SFT, none").words == ""


def test_the_time_of_a_step_counts_every_operation_and_its_utilisation_only_those_of_the_model() -> None:
    cost = fitted(EIGHT, "qwen3vl", "2B", "SFT, ngdiff").plan
    seconds, mfu = step_time(cost, 1e15)
    assert seconds == pytest.approx(cost.work.flops / (UTILISATION * 8e15))
    assert mfu == pytest.approx(cost.work.model_flops / (seconds * 8e15))
