"""What to say of offline rows: samples that somebody collected, and no generator made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def counted(about: Mapping[str, Any]) -> str:
    """The same in a sentence.

    >>> counted({"path": "a.jsonl", "rows": {"train_sft": 7, "test": 2}, "skipped": 1, "examples": ["a.jsonl, line 3: it is not JSON."]})
    'a.jsonl: 7 train_sft, 2 test rows, 1 skipped (a.jsonl, line 3: it is not JSON.)'
    """
    rows = ", ".join(f"{number} {split}" for split, number in about["rows"].items())
    left_out = f", {about['skipped']} skipped ({'; '.join(about['examples'])})" if about["skipped"] else ""
    return f"{about['path']}: {rows} rows{left_out}"
