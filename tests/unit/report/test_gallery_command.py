"""`percasym gallery` on the real tasks."""

from pathlib import Path

import pytest

from percasym.cli.gallery import SETTINGS, main
from percasym.config.schema import ConfigError


@pytest.mark.parametrize("task", SETTINGS)
def test_a_page_holds_every_sample_of_every_difficulty(tmp_path: Path, task: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([task, "--samples", "2", "--out", str(tmp_path / "new")]) == 0
    page = tmp_path / "new" / f"{task}.html"
    assert capsys.readouterr().out.split() == [str(page)]
    html = page.read_text()
    assert html.count("<article>") == html.count("data:image/png;base64,") == 2 * len(SETTINGS[task])
    assert all(title in html for title, _ in SETTINGS[task])


def test_the_same_command_writes_the_same_page(tmp_path: Path) -> None:
    pages = []
    for name in ("a", "b"):
        main(["sudoku", "--samples", "1", "--out", str(tmp_path / name)])
        pages.append((tmp_path / name / "sudoku.html").read_bytes())
    assert pages[0] == pages[1]


@pytest.mark.parametrize(
    ("argv", "message"), [(["chess"], "no task named 'chess'; the tasks are sudoku, graph_coloring"), (["--samples", "0"], "got 0")]
)
def test_a_wrong_argument_is_refused(argv: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        main(argv)
