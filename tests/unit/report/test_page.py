"""The report page: one offline file that names what it lacks and works in a browser."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from percasym.cli.main import main
from percasym.report.load import load_runs
from percasym.report.publish import publish

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHOOSE = "document.querySelector('input[value=perception]').click();"
SIZES = "document.title = [...document.querySelectorAll('figure.plot svg')].map(svg => svg.getBoundingClientRect().height > 50).join();"


@pytest.fixture(scope="module")
def study(cell_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """none, two weights and ngdiff, two seeds each; reported once for all tests."""
    folder = tmp_path_factory.mktemp("multirun") / "demo"
    for balance, after in (("none", 0.3), ("0.3", 0.5), ("0.7", 0.4), ("ngdiff", 0.6)):
        for seed in (0, 1):
            cell_run(folder, balance, seed, after + 0.02 * seed)
    publish(load_runs(folder), folder / "report")
    return folder / "report"


def test_the_folder_holds_page_figures_and_tables(study: Path) -> None:
    drawn = {f"{name}.{kind}" for name in ("frontier", "weight", "learning", "gap", "dynamics") for kind in ("png", "svg")}
    assert {path.name for path in study.iterdir()} == drawn | {"report.html", "report.md", "cells.csv", "runs.csv"}
    assert "it needs a run of paradigm=rl" in (study / "report.md").read_text(), "a figure that is left out is named"
    assert "| sudoku-qwen3vl-sft-fixed0.3 | 2 | 51.0 " in (study / "report.md").read_text()


def test_findings_and_the_comparison_stand_above_the_figures(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    wrong, reasoning, perception = ([one] * 8 for one in ((False, False, False), (True, False, True), (False, True, False)))
    cell_run(tmp_path / "s", "none", 0, 0.5, grades=(wrong, reasoning))
    cell_run(tmp_path / "s", "ngdiff", 0, 0.7, grades=(wrong, perception))
    publish(load_runs(tmp_path), tmp_path / "report")
    page, text = ((tmp_path / "report" / name).read_text() for name in ("report.html", "report.md"))
    finding = "ngdiff: a_p is 100.0 points higher than with none (95 % interval [+48.4, +100.0], n = 8): clear of 0."
    # Before, after and gain are those of summary.json; the difference is that of the samples.
    cells = ("10.0 [5, 15]", "70.0 [65, 75]", "+60.0 [+55.0, +65.0]", "+100.0 [+48.4, +100.0]")
    html = "".join(f"<td>{cell}</td>" for cell in cells)
    shown = html_line(page, f'<th scope="row">ngdiff</th>{html}')
    assert shown.endswith('<span class="badge good">clear of 0</span></td></tr>')
    assert page.index(f"<li>{finding}</li>") < page.index(shown) < page.index('<section id="frontier">')
    row = f"| a_p | ngdiff | {' | '.join(cells)} | clear of 0 |"
    assert text.index(f"- {finding}") < text.index(row) < text.index("![")


def html_line(page: str, start: str) -> str:
    """The row of a table that begins with `start`, in one line."""
    return page[page.index(start) :].split("</tr>")[0].replace("\n", "") + "</tr>"


def test_two_runs_of_one_cell_and_seed_leave_the_rest_of_the_report(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    for study in ("one", "two"):
        cell_run(tmp_path / study, "none", 0, 0.5)
    publish(load_runs(tmp_path), tmp_path / "report")
    for name in ("report.html", "report.md"):
        assert "Not compared: " in (tmp_path / "report" / name).read_text()
        assert "Name the runs of one study." in (tmp_path / "report" / name).read_text()


def test_the_page_loads_nothing_from_the_network(study: Path) -> None:
    page = (study / "report.html").read_text()
    assert re.findall(r'(?:href|src)="(?!#|data:)[^"]*"', page) == []
    assert not re.search(r"https?://(?!www\.w3\.org)", page)
    assert "@import" not in page


def test_ids_of_the_page_are_its_own(study: Path) -> None:
    page = (study / "report.html").read_text()
    parts = page.split("<section id=")
    inside = [set(re.findall(r'\bid="([^"]+)"', part)) for part in parts]
    assert sum(map(len, inside)) == len(set().union(*inside)), "the ids of two figures differ"


def test_the_text_of_a_model_is_escaped(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    cell_run(tmp_path / "s", "none", 0, 0.5, reasoning="<script>alert(1)</script>", stated="</pre><img src=x>")
    page = publish(load_runs(tmp_path), tmp_path / "report").page.read_text()
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_a_study_with_nothing_finished_still_has_a_page(tmp_path: Path, make_run, capsys: pytest.CaptureFixture[str]) -> None:
    make_run("s/cell/seed0", finished=False)
    assert main(["report", str(tmp_path / "s"), "--out", str(tmp_path / "out")]) == 0
    output = capsys.readouterr().out
    assert output.count("Left out: ") == 8
    assert "Not finished, and not shown: 1 (<code>percasym status</code> says why)." in (tmp_path / "out" / "report.html").read_text()


def test_status_is_a_grid_of_cells_and_seeds(cell_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cell_run(tmp_path / "s", "none", 0, 0.5)
    cell_run(tmp_path / "s", "0.5", 1, 0.5)
    assert main(["status", str(tmp_path / "s")]) == 0
    output = capsys.readouterr().out
    assert "seed 0" in output
    assert "seed 1" in output
    assert "2 done" in output


def test_two_hundred_runs_are_reported_without_torch(
    cell_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = cell_run(tmp_path / "many", "0.001", 0, 0.4, verdicts=[(True, True), (False, True)] * 25, steps=100)
    for i in range(1, 200):
        copy = tmp_path / "many" / f"sudoku-qwen3vl-sft-fixed0.{i // 10:02d}" / f"seed{i % 10}"
        shutil.copytree(first, copy)
        config = copy / "config.yaml"
        config.write_text(config.read_text().replace("seed: 0", f"seed: {i % 10}"))
    needed = "import sys, time\nfrom pathlib import Path\nfrom percasym.report.load import load_runs\n"
    needed += "from percasym.report.publish import publish\n"
    work = f"publish(load_runs(Path({str(tmp_path / 'many')!r})), Path({str(tmp_path / 'out')!r}))\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{needed}{work}print('torch' in sys.modules, time.process_time())"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    heavy, seconds = done.stdout.split()
    with capsys.disabled():
        print(f"\n200 runs in {float(seconds):.1f} s of processor time")
    assert heavy == "False"
    assert (tmp_path / "out" / "report.html").stat().st_size > 1e5


def dumped(page: Path, folder: Path, script: str) -> str:
    """The page's document in a browser that has no network, after `script`; no error may have reached the console."""
    copy = folder / "page.html"
    copy.write_text(page.read_text().replace("</body>", f"<script>{script}</script></body>"))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--host-resolver-rules=MAP * ~NOTFOUND"]
    done = subprocess.run(
        [str(CHROMIUM), *flags, f"--user-data-dir={folder / 'profile'}", "--dump-dom", copy.as_uri()],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    return done.stdout


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on PATH")
def test_a_browser_shows_the_figures_and_the_filter_works(study: Path, tmp_path: Path) -> None:
    document = dumped(study / "report.html", tmp_path, SIZES + CHOOSE)
    assert "<title>true,true,true,true,true</title>" in document, "five figures have a size"
    cards = re.findall(r'<article data-cell="(\w+)" data-category="(\w+)"( hidden)?', document.replace('hidden=""', "hidden"))
    assert len(cards) == 4 * 5
    assert [(cell, kind) for cell, kind, hidden in cards if not hidden] == [("c0", "perception")]
    assert "1 of the first 5 test samples." in document


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on PATH")
def test_an_error_in_the_console_would_be_noticed(study: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="CONSOLE"):
        dumped(study / "report.html", tmp_path, "console.error('planted')")
