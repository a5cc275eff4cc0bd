"""Records as runs keep them."""

from __future__ import annotations

import io
from base64 import b64encode
from typing import Any

import pytest


@pytest.fixture
def picture() -> str:
    """A picture, two pixels wide and three high, as records hold it."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("L", (2, 3)).save(file, "PNG")
    return b64encode(file.getvalue()).decode("ascii")


@pytest.fixture
def evaluated(picture: str) -> dict[str, Any]:
    """The record of one sample of an evaluation: wrong perception, reasoning right for p*."""
    response = {"ids": [1], "labels": [0], "percept": "13", "reasoning": "so 4", "answer": "14", "finished": True}
    return {
        "key": {"task": "sudoku", "split": "test", "seed": 0, "index": 7},
        "question": "What is there?",
        "truth": "12",
        "image": picture,
        "responses": {"image": response, "prefix": response, "text": response},
        "faults": {"image": ["truncated"], "prefix": [], "text": []},
        "grades": {
            "end_to_end": False, "perception": False, "perception_graded": 0.5, "reasoning": True, "reasoning_text": True, "faithful": True,
        },
    }  # fmt: skip
