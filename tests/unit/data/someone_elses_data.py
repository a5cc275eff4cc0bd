"""Write a data set unrelated to percasym: pictures of coloured discs, and a file of rows.

python tests/unit/data/someone_elses_data.py FOLDER --rows 200 --form columns      (tagged: one response with tags; plain: one without)
"""

import argparse
import base64
import io
import json
import random
from pathlib import Path

from PIL import Image, ImageDraw

COLOURS = {"red": (200, 40, 40), "green": (40, 160, 60), "blue": (50, 80, 200)}


def discs(rng: random.Random) -> tuple[Image.Image, dict[str, int]]:
    """A picture of up to six discs, and how many there are of each colour."""
    image, counts = Image.new("RGB", (80, 64), (240, 240, 230)), dict.fromkeys(COLOURS, 0)
    for place in range(6):
        colour = rng.choice([*COLOURS, None])
        if colour:
            x, y = 14 + 26 * (place % 3), 16 + 32 * (place // 3)
            ImageDraw.Draw(image).ellipse((x - 9, y - 9, x + 9, y + 9), fill=COLOURS[colour])
            counts[colour] += 1
    return image, counts


def texts(counts: dict[str, int], form: str) -> dict[str, str]:
    """The columns of a row in one of three forms."""
    perception = ", ".join(f"{count} {colour}" for colour, count in counts.items())
    total = sum(counts.values())
    sentences = [f"There are {count} {colour} discs, so we add {count}." for colour, count in counts.items() if count]
    reasoning = " ".join([*sentences, f"Adding all of them up gives {total} discs, which is what was asked for."])
    if form == "tagged":
        return {"response": f"<perception>{perception}</perception> {reasoning} <answer>{total}</answer>"}
    if form == "plain":
        return {"response": f"{perception}\nReasoning: {reasoning}", "answer": str(total)}
    return {"perception": perception, "reasoning": reasoning, "answer": str(total)}


def main(folder: Path, rows: int, form: str, inline: bool) -> None:
    """Write discs.jsonl and its pictures: beside it, or inside it as base64."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(1)
    with (folder / "discs.jsonl").open("w") as file:
        for index in range(rows):
            image, counts = discs(rng)
            data, name = io.BytesIO(), f"discs_{index}.jpg"
            image.save(data, "JPEG", quality=95)
            if inline:
                name = base64.b64encode(data.getvalue()).decode()
            else:
                (folder / name).write_bytes(data.getvalue())
            file.write(json.dumps({"image": name, "query": "How many discs are there?", **texts(counts, form)}) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--form", choices=("columns", "tagged", "plain"), default="columns")
    parser.add_argument("--inline", action="store_true", help="pictures as base64 in the rows")
    main(**vars(parser.parse_args()))
