"""Rows of a collected data set and their images."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image


@pytest.fixture
def encoded() -> Callable[..., bytes]:
    """`encoded(200, "JPEG")`: a picture of one grey level."""

    def make(shade: int, encoding: str = "PNG") -> bytes:
        out = io.BytesIO()
        Image.new("RGB", (16, 16), (shade,) * 3).save(out, encoding)
        return out.getvalue()

    return make


@pytest.fixture
def row(tmp_path: Path, encoded: Callable[..., bytes]) -> Callable[..., dict[str, Any]]:
    """`row(7, answer="8")`: the columns of row 7, whose picture lies beside the file."""

    def make(number: int, **columns: Any) -> dict[str, Any]:
        (tmp_path / "pictures").mkdir(exist_ok=True)
        (tmp_path / "pictures" / f"{number}.png").write_bytes(encoded(number))
        own = {"image": f"pictures/{number}.png", "query": f"What is in picture {number}?"}
        return own | {"perception": f"red {number}", "reasoning": " I count. ", "answer": str(number)} | columns

    return make


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """`write(rows)`: a file of JSON lines, and its path; texts are written as they are."""

    def lines(rows: Iterable[dict[str, Any] | str], name: str = "rows.jsonl") -> str:
        path = tmp_path / name
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return lines
