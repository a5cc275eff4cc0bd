"""Two hundred pictures of coloured discs, as someone might make them who has never heard of percasym.

python someone_elses_data.py FOLDER
"""

import json
import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw

COLOURS = {"red": (200, 40, 40), "green": (40, 160, 60), "blue": (50, 80, 200)}


def main(folder: Path, number: int = 200) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(1)
    with (folder / "discs.jsonl").open("w") as file:
        for index in range(number):
            image = Image.new("RGB", (80, 64), (240, 240, 230))
            counts = dict.fromkeys(COLOURS, 0)
            for place in range(6):
                colour = rng.choice([*COLOURS, None])
                if colour:
                    x, y = 14 + 26 * (place % 3), 16 + 32 * (place // 3)
                    ImageDraw.Draw(image).ellipse((x - 9, y - 9, x + 9, y + 9), fill=COLOURS[colour])
                    counts[colour] += 1
            image.save(folder / f"discs_{index}.jpg", quality=95)
            seen = ", ".join(f"{count} {colour}" for colour, count in counts.items())
            total = sum(counts.values())
            sentences = [f"There are {count} {colour} discs, so we add {count}." for colour, count in counts.items() if count]
            thoughts = " ".join([*sentences, f"Adding all of them up gives {total} discs, which is what was asked for."])
            row = {"image": f"discs_{index}.jpg", "query": "How many discs are there?"}
            file.write(json.dumps(row | {"perception": seen, "reasoning": thoughts, "answer": str(total)}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
