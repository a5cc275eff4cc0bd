"""A terminal sees one live bar; a log file sees a few plain lines."""

import io

from rich.console import Console

from percasym.runs.progress import ProgressBar


def plain_lines(total: int, seconds_each: float, start: int = 0) -> list[str]:
    out, now = io.StringIO(), [0.0]
    with ProgressBar(total, "train", start, console=Console(file=out, width=80), clock=lambda: now[0]) as progress:
        for step in range(start + 1, total + 1):
            now[0] += seconds_each
            progress.advance(step, L_p=0.5, w=0.25)
    return out.getvalue().splitlines()


def test_a_log_file_gets_a_line_every_ten_seconds_and_the_last() -> None:
    # 25 steps of 2 s: lines at 10, 20, 30, 40 and 50 s, the last of which ends the work.
    lines = plain_lines(total=25, seconds_each=2)
    assert len(lines) == 5
    assert lines[0] == "train 5/25 (2.0 s each, 40 s left) L_p 0.5 w 0.25"
    assert lines[-1] == "train 25/25 (2.0 s each) L_p 0.5 w 0.25"


def test_quick_work_says_one_line() -> None:
    assert len(plain_lines(total=100, seconds_each=0.01)) == 1


def test_the_rate_counts_only_the_steps_of_this_session() -> None:
    assert plain_lines(total=210, seconds_each=1, start=200) == ["train 210/210 (1.0/s) L_p 0.5 w 0.25"]


def test_a_terminal_of_eighty_columns_shows_everything_in_one_row() -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, color_system=None, legacy_windows=False)
    with ProgressBar(300, "train", 100, console=console) as progress:
        progress.advance(120, L_p=0.523, L_r=0.314, weight=0.4412)
    rows = [row for row in out.getvalue().split("\n") if "120/300" in row]
    assert rows
    assert all(part in rows[-1] for part in ("train", "L_p 0.523", "L_r 0.314", "weight 0.441"))
    assert "\n" not in rows[-1].strip("\n")
    assert len(rows[-1].split("\r")[-1].replace("\x1b[2K", "")) <= 80
