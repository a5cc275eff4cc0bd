"""The report page: one offline file that names what it lacks and works in a browser."""

from __future__ import annotations

import hashlib
import html
import re
import shutil
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

import percasym
from percasym.cli.main import main
from percasym.report.header import EXPERIMENTS, stated_in
from percasym.report.html import CHART_LIBRARY, chart_library
from percasym.report.load import load_runs
from percasym.report.publish import publish

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHOOSE = "document.querySelector('input[value=perception]').click();"
SIZES = """
const drawn = canvas => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some(Boolean);
document.title = [...document.querySelectorAll("canvas[data-figure]")].map(canvas => canvas.clientHeight > 100 && drawn(canvas)).join();
"""
HIDE = """
const points = () => charts.map(one => one.chart.data.datasets.filter(set => !set.quiet).reduce((sum, set) => sum + set.data.length, 0));
const before = points();
document.querySelector('[data-toggle="g0c1"]').click();
document.title = before.map((number, i) => points()[i] < number).join();
"""
KEYS = """
const canvas = document.querySelector("canvas[data-figure=frontier]");
canvas.focus();
const press = key => canvas.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
press("ArrowRight");
const first = document.getElementById("read").textContent;
press("ArrowRight");
document.title = `${document.activeElement === canvas}|${first}|${document.getElementById("read").textContent}`;
"""
NARROW = """
const tables = [...document.querySelectorAll("table.comparison")];
const fits = charts.every(one => one.chart.width <= innerWidth) && tables.length > 0 && tables.every(one => one.offsetWidth <= innerWidth);
parent.postMessage([document.documentElement.scrollWidth, innerWidth, fits].join(), "*");
"""
FRAME = """<!doctype html><title>none</title><script>addEventListener("message", event => { document.title = event.data; });</script>
<iframe src="page.html" width="390" height="844"></iframe>"""


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
    drawn = {f"{name}.{kind}" for name in ("frontier", "weight", "learning", "gap", "differences", "dynamics") for kind in ("png", "svg")}
    assert {path.name for path in study.iterdir()} == drawn | {"report.html", "report.md", "cells.csv", "runs.csv"}
    assert "it needs a run of paradigm=rl" in (study / "report.md").read_text(), "a figure that is left out is named"
    assert "| sudoku-qwen3vl-sft-fixed0.3 | 2 | 51.0 " in (study / "report.md").read_text()


def test_findings_and_the_comparison_stand_above_the_figures(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    wrong, reasoning, perception = ([one] * 8 for one in ((False, False, False), (True, False, True), (False, True, False)))
    cell_run(tmp_path / "s", "none", 0, 0.5, grades=(wrong, reasoning))
    cell_run(tmp_path / "s", "ngdiff", 0, 0.7, grades=(wrong, perception))
    publish(load_runs(tmp_path), tmp_path / "report")
    page, text = ((tmp_path / "report" / name).read_text() for name in ("report.html", "report.md"))
    assert "Contributions to the gain of a" in page and "](contributions.png)" in text and "](differences.png)" in text
    finding = "ngdiff: a_p is 100.0 points higher than with none (95 % interval [+48.4, +100.0], n = 8): clear of 0."
    # Before, after and gain are those of summary.json; the difference is that of the samples.
    cells = ("10.0 [5, 15]", "70.0 [65, 75]", "+60.0 [+55.0, +65.0]", "+100.0 [+48.4, +100.0]")
    before, after = (f'{number} <span class="wide">{interval}</span>' for number, interval in (cell.split(" ", 1) for cell in cells[:2]))
    difference = f'{cells[3]}<span class="badge good narrow">clear of 0</span>'
    fields = "".join(f"<td>{cell}</td>" for cell in (before, after, cells[2], difference)).replace(", ", ",\u00a0")
    shown = html_line(page, f'<th scope="row">ngdiff</th>{fields}')
    assert shown.endswith('<td class="wide"><span class="badge good wide">clear of 0</span></td></tr>'), "in a column of its own, if wide"
    statement = finding.removesuffix(": clear of 0.").replace("n = ", "n\u00a0=\u00a0")
    assert f'<span class="badge good">clear of 0</span> <span>{statement}</span>' in page
    assert page.index(statement) < page.index(shown) < page.index('<section id="frontier">')
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
    assert re.findall(r'<[^>]*(?:href|src)="(?!#|data:)[^"]*"', page.replace(str(chart_library()), "")) == []
    assert not re.search(r"https?://(?!www\.w3\.org)", page.replace(str(chart_library()), "")), "the library names its home"
    assert "@import" not in page
    assert "default-src 'none'" in page, "and the policy would forbid it"


def test_the_policy_admits_the_page_s_own_scripts_and_styles_by_digest_and_no_inline_style(study: Path) -> None:
    page = (study / "report.html").read_text()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert "unsafe" not in policy[1]
    inline = re.findall(r"<(?:style|script)>(.*?)</(?:style|script)>", page, flags=re.DOTALL)
    assert len(inline) == 4, "the style, the library, the figures and the filter"
    for text in inline:
        assert b64encode(hashlib.sha256(text.encode()).digest()).decode() in policy[1]
    body = page.replace(str(chart_library()), "")
    assert not re.search(r"<[^>]*\sstyle=", body), "the policy forbids style attributes"
    assert not re.search(r"<[^>]*\son\w+=", body), "and handlers in attributes"


def test_the_vendored_library_is_the_one_that_its_page_names() -> None:
    folder = Path(percasym.__file__).parent / "assets" / "charts"
    named = re.findall(r"^\| (\S+\.js) \| \S+ \| [\d.]+ \| \S+ \| (\w{64}) \|$", (folder / "README.md").read_text(), flags=re.MULTILINE)
    assert {name for name, _ in named} == {path.name for path in folder.glob("*.js")} == set(CHART_LIBRARY)
    assert [name for name, digest in named if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest] == []
    assert {path.name for path in folder.glob("LICENSE-*")} == {"LICENSE-Chart.js.txt", "LICENSE-chartjs-chart-error-bars.txt"}


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
    assert output.count("Left out: ") == 11
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


def dumped(page: Path, folder: Path, script: str, *, admitted: bool = True, frame: str = "") -> str:
    """The page's document in a browser that has no network, after `script`; no error may have reached the console.

    The page's policy is given the digest of the script, unless it is not `admitted`. With a `frame` the page is shown inside it.
    """
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = page.read_text().replace("script-src ", f"script-src 'sha256-{digest}' ", int(admitted))
    (folder / "page.html").write_text(text.replace("</body>", f"<script>{script}</script></body>"))
    (folder / "frame.html").write_text(frame)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--host-resolver-rules=MAP * ~NOTFOUND"]
    shown = folder / ("frame.html" if frame else "page.html")
    done = subprocess.run(
        [str(CHROMIUM), *flags, f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=2000", "--dump-dom", shown.as_uri()],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    return done.stdout


def title(document: str) -> str:
    return html.unescape(document.split("<title>")[1].split("</title>")[0])


needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on PATH")


@needs_browser
def test_a_browser_draws_every_panel_and_the_filter_works(study: Path, tmp_path: Path) -> None:
    document = dumped(study / "report.html", tmp_path, SIZES + CHOOSE)
    # frontier 1, weight 1, learning 3, gains 1, dynamics 4
    assert title(document) == ",".join(["true"] * 10)
    cards = re.findall(r'<article data-cell="(\w+)" data-category="(\w+)"( hidden)?', document.replace('hidden=""', "hidden"))
    assert len(cards) == 4 * 5
    assert [(cell, kind) for cell, kind, hidden in cards if not hidden] == [("c0", "perception")]
    assert "1 of the first 5 test samples." in document


@needs_browser
def test_a_cell_is_hidden_in_every_figure(study: Path, tmp_path: Path) -> None:
    assert title(dumped(study / "report.html", tmp_path, HIDE)) == ",".join(["true"] * 10)


@needs_browser
def test_points_and_whiskers_keep_a_distance_to_the_frame(study: Path, tmp_path: Path) -> None:
    script = """
    const inside = (scale, low, high) => scale.min < low && high < scale.max;
    const all = name => charts.filter(one => one.panel.kind === "scatter").flatMap(one => one.panel.series.filter(set => !set.quiet)
      .flatMap(set => set.points.map(point => inside(one.chart.scales[name], point[`${name}Min`], point[`${name}Max`]))));
    const weights = charts.filter(one => one.panel.title === "weight of perception w");
    document.title = [...all("x"), ...all("y"), ...weights.map(one => inside(one.chart.scales.y, 0, 1))].join();
    """
    # Four cells on two scatter plots, both axes of each; a constant weight of 0 would lie on the frame of 0 to 1.
    assert title(dumped(study / "report.html", tmp_path, script)) == ",".join(["true"] * 17)


@needs_browser
def test_two_cells_at_one_place_are_both_seen_and_read(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    for balance in ("none", "ngdiff"):
        cell_run(tmp_path / "s", balance, 0, 0.5)
    script = """
    const one = charts.find(one => one.panel.kind === "scatter"), shown = [0, 1].map(i => one.chart.getDatasetMeta(i).data[0]);
    const at = [0, 1].map(datasetIndex => ({ datasetIndex, index: 0 }));
    one.chart.tooltip.setActiveElements(at, { x: shown[0].x, y: shown[0].y });
    one.chart.update("none");
    const lines = one.chart.tooltip.body.flatMap(part => part.lines);
    const line = charts.find(one => one.panel.kind === "line").chart, over = line.getSortedVisibleDatasetMetas().map(meta => meta.index);
    document.title = [over.join(), shown[0].x === shown[1].x, shown[0].options.radius < shown[1].options.radius, ...lines].join("|");
    """
    over, same, rim, *lines = title(dumped(publish(load_runs(tmp_path / "s"), tmp_path / "out").page, tmp_path, script)).split("|")
    assert over == "1,0", "the last is drawn first: of two lines at one place the dashes of the second are on top"
    assert (same, rim) == ("true", "true")
    assert [line.split(":")[0] for line in lines] == ["none", "ngdiff"]


@needs_browser
def test_arrow_keys_read_the_points_of_a_figure(study: Path, tmp_path: Path) -> None:
    focused, first, second = title(dumped(study / "report.html", tmp_path, KEYS)).split("|")
    assert focused == "true"
    # none is the cell with the lowest a_p: 0.30 and 0.32.
    assert first == "none: a_p 31.0 [26, 36], a_r 31.0 [26, 36], a 31.0 [26, 36], n = 5, 2 seeds"
    assert second.startswith("0.7: a_p 41.0 ")


@needs_browser
def test_a_phone_of_390_pixels_shows_the_page_without_scrolling_sideways(study: Path, tmp_path: Path) -> None:
    width, inner, fits = title(dumped(study / "report.html", tmp_path, NARROW, frame=FRAME)).split(",")
    assert inner == "390"
    assert int(width) <= 390
    assert fits == "true"


@needs_browser
def test_a_script_that_the_policy_does_not_name_is_blocked(study: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="inline script violates"):
        dumped(study / "report.html", tmp_path, "document.title = 'planted'", admitted=False)


@needs_browser
def test_an_error_in_the_console_would_be_noticed(study: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="CONSOLE"):
        dumped(study / "report.html", tmp_path, "console.error('planted')")


def test_the_question_of_a_study_stands_at_its_head(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    cell_run(tmp_path / "asymmetry", "none", 0, 0.5)
    publish(load_runs(tmp_path), tmp_path / "out")
    page, text = ((tmp_path / "out" / name).read_text() for name in ("report.html", "report.md"))
    stated = stated_in(EXPERIMENTS / "asymmetry.yaml")
    assert stated["Question"].startswith("On both tasks and both families, does a_r gain more than a_p")
    assert f"<h1>{stated['Question']}</h1>" in page and stated["Prediction"] in page
    assert "<dt>training</dt><dd>SFT, 4 steps of ?</dd>" in page and "<dt>seeds</dt><dd>0</dd>" in page
    assert f"<dt>finished</dt><dd>{datetime.now(UTC):%Y-%m-%d}</dd>" in page
    assert "Qwen3-VL · Sudoku · SFT, 4 steps of ? · asymmetry" in text.splitlines()[0]
    assert stated_in(EXPERIMENTS / "../config.yaml") == {}
    assert all(stated_in(file) for file in EXPERIMENTS.glob("strategies.yaml"))


def test_a_study_of_collected_rows_names_their_file(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    config = cell_run(tmp_path / "mine", "none", 0, 0.5) / "config.yaml"
    config.write_text(config.read_text() + "task: {_target_: percasym.tasks.given.task.Given, path: /home/me/<b>.jsonl}\n")
    page = publish(load_runs(tmp_path), tmp_path / "out").page.read_text()
    assert "<dt>task</dt><dd>rows of &lt;b&gt;.jsonl</dd>" in page and "/home/me" not in page.split("<main>")[0]


def test_a_statement_goes_on_over_lines_until_the_next(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("# @package _global_\n# A title.\n# Question: One\n#   or two?\n# Prediction: Two.\n# Cost: none\nstudy: mine\n")
    assert stated_in(file) == {"Question": "One or two?", "Prediction": "Two."}


def test_of_many_cells_the_findings_in_a_lead(study: Path) -> None:
    page = (study / "report.html").read_text()
    assert "a is" in page.split("more findings, in a_p and a_r</summary>")[0]
    assert page.split("more findings, in a_p and a_r</summary>")[1].count('<span class="badge') >= 6


def test_a_second_report_of_everything_below_a_study_ignores_the_first(
    cell_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for balance in ("none", "ngdiff"):
        cell_run(tmp_path / "s", balance, 0, 0.5)
    for _ in range(2):  # The second time the shell expands */* to report/report.html and the other files too.
        assert main(["report", *map(str, sorted((tmp_path / "s").glob("*/*")))]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == f"Page: {tmp_path / 's' / 'report' / 'report.html'}"
    assert main(["compare", *map(str, sorted((tmp_path / "s").glob("*/*")))]) == 0


def test_runs_beside_a_report_are_kept(cell_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, balance in (("one", "none"), ("two", "ngdiff")):
        cell_run(tmp_path / name, balance, 0, 0.5)
    assert main(["report", str(tmp_path / "one"), "--out", str(tmp_path / "one")]) == 0  # Its page stands beside the cells.
    capsys.readouterr()
    assert main(["report", "--markdown", str(tmp_path / "one"), str(tmp_path / "two")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4, "a header and both cells"
