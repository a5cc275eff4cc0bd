"""Rows of collected data that are checked against the model in a second, before training.

    python benchmarks/rows.py                        100,000 rows of 10,000 pictures (224 x 224), of 1,000 photos (1024 x 768), 3 rounds
    python benchmarks/rows.py --rows 2000 --rounds 1   a quick look

Each row has texts of 500 characters; ten questions share a picture. Everything that a run does is measured: parsing, decoding every picture
completely, control tokens, lengths, splits, the fingerprint. Seconds are those of the processor; files are in the page cache.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import tempfile
import time
from pathlib import Path
from statistics import median

from PIL import Image

from percasym.config.resolve import composed
from percasym.data.checks import with_checked_rows
from percasym.tasks.given.task import _table

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "rows.json"
QUESTIONS = 10
"""Of one picture, as in sets of visual questions."""
CASES = {"PNG, 224 x 224": ("PNG", (224, 224), 10_000), "JPEG, 1024 x 768": ("JPEG", (1024, 768), 1_000)}
"""Encoding, size, and how many different pictures; the case with fewer pictures has fewer rows."""


def write(folder: Path, encoding: str, size: tuple[int, int], num_pictures: int) -> Path:
    """A file of rows and its pictures: blobs of colour, enlarged, so that they compress as a drawing or a photo does."""
    rng, path = random.Random(0), folder / "rows.jsonl"
    with path.open("w") as file:
        for number in range(num_pictures):
            name = f"{number}.{encoding.lower()}"
            blobs = Image.frombytes("RGB", (16, 12), rng.randbytes(16 * 12 * 3))
            blobs.resize(size, Image.Resampling.BICUBIC).save(folder / name, encoding)
            for question in range(QUESTIONS):
                texts = {"query": f"Question {question}?", "perception": "3 red, 2 blue", "reasoning": "3 and 2 are 5. " * 30, "answer": 5}
                file.write(json.dumps({"image": name, **texts}) + "\n")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    results = {}
    for name, (encoding, size, most) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            num_pictures = max(1, most * asked.rows // 100_000)
            path = write(Path(folder), encoding, size, num_pictures)
            settings = with_checked_rows(composed(["task=jsonl", f"task.path={path}"], ROOT / "conf"))
            seconds = []
            for _ in range(asked.rounds):
                _table.cache_clear()
                began = time.process_time()
                about = settings.task.about()
                seconds.append(time.process_time() - began)
            assert about is not None and sum(about["rows"].values()) == num_pictures * QUESTIONS
        num_rows = num_pictures * QUESTIONS
        rate = num_rows / median(seconds)
        results[name] = {"rows": num_rows, "pictures": num_pictures, "seconds": sorted(seconds), "rows_a_second": rate}
        print(f"{name}: {num_rows:,} rows, {num_pictures:,} pictures, {median(seconds):.1f} s of the processor, {rate:,.0f} rows/s")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{memory} MiB at most, the model's tokenizer and PyTorch included")
    if asked.rows == 100_000:
        document = {"rounds": asked.rounds, "cores": os.cpu_count(), "results": results, "mib": memory}
        RESULTS.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
