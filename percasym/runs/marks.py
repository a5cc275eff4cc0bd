"""The mark that others leave on a run whose own processes could not: they were killed, or knew less."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from percasym.runs.records import document, write_whole


def stopped(path: Path, status: Literal["failed", "interrupted"], **more: str) -> bool:
    """Mark the run at `path` as ended; False when there is none. What its processes said is replaced, unless it is done or in order."""
    file = path / "meta.json"
    meta = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if meta.get("status") in ("running", "failed"):
        write_whole(file, document(meta | {"status": status} | more))
    return bool(meta)
