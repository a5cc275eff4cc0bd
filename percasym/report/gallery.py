"""A page of samples that a person can check: picture, p*, question, and the demonstration in its two spans.

One file, no script, nothing from the network; whatever a sample says is escaped, so a user's own data
can be shown too.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from percasym.types import Sample, SampleKey

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1d1d1f; --soft: #5c5c66; --line: #dcdce2; --card: #f7f7f9;
  --seen: #005a8e; --seen-paper: #e1eff8; --thought: #8f3e00; --thought-paper: #fbeadf; }
@media (prefers-color-scheme: dark) { :root { --paper: #141417; --ink: #ececf0; --soft: #a3a3ad; --line: #36363d; --card: #1c1c20;
  --seen: #8cc8f0; --seen-paper: #10293a; --thought: #f5b58a; --thought-paper: #3a2010; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 72rem; background: var(--paper); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
h1 { margin: .5rem 0; font-size: 1.6rem; } h2 { margin: 2.5rem 0 .25rem; font-size: 1.2rem; }
p { margin: .25rem 0 1rem; color: var(--soft); }
code, pre { font: .85rem/1.5 ui-monospace, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
article { display: grid; grid-template-columns: 16rem minmax(0, 1fr); gap: 1.25rem; margin: 1rem 0; padding: 1rem; background: var(--card);
  border: 1px solid var(--line); border-radius: .5rem; }
img { display: block; width: 100%; max-width: 16rem; image-rendering: pixelated; border: 1px solid var(--line); }
dl { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; margin: .75rem 0 0; }
dt { color: var(--soft); font-size: .8rem; } dd { margin: 0; } .wide { width: 100%; }
pre { margin: 0; white-space: pre-wrap; }
pre.response { align-self: start; max-height: 30rem; overflow: auto; padding: .6rem; border: 1px solid var(--line);
  border-radius: .3rem; background: var(--paper); }
.seen { color: var(--seen); background: var(--seen-paper); } .thought { color: var(--thought); background: var(--thought-paper); }
@media (max-width: 40rem) { article { grid-template-columns: minmax(0, 1fr); } }
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
<p>Each response is <span class="seen">perception</span> first, then <span class="thought">reasoning</span>.</p>
{sections}
</body>
</html>
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Samples of one difficulty."""

    title: str
    note: str
    samples: Sequence[Sample]


def gallery(title: str, sections: Iterable[Section]) -> str:
    """One self-contained HTML page; readable in light and dark, on a phone and on paper."""
    return PAGE.format(title=escape(title), style=STYLE, sections="\n".join(map(_section, sections)))


def _section(section: Section) -> str:
    cards = "\n".join(map(_card, section.samples))
    return f"<section>\n<h2>{escape(section.title)}</h2>\n<p><code>{escape(section.note)}</code></p>\n{cards}\n</section>"


def _card(sample: Sample) -> str:
    perception, reasoning = escape(sample.demonstration.perception), escape(sample.demonstration.reasoning)
    facts = (
        ("p*", "narrow", sample.truth),
        ("a solution", "narrow", sample.solution),
        ("question", "wide", sample.prompt.question),
        ("key", "wide", _name(sample.prompt.key)),
    )
    listed = "".join(f'<div class="{width}"><dt>{name}</dt><dd><pre>{escape(text)}</pre></dd></div>' for name, width, text in facts)
    response = f'<pre class="response" tabindex="0"><span class="seen">{perception}</span><span class="thought">{reasoning}</span></pre>'
    return f"<article>\n<div>{_picture(sample)}<dl>{listed}</dl></div>\n{response}\n</article>"


def _picture(sample: Sample) -> str:
    if sample.prompt.image is None:
        return "<p>no picture: the percept is given as text</p>"
    data = b64encode(sample.prompt.image).decode("ascii")
    return f'<img src="data:image/png;base64,{data}" alt="picture of {escape(sample.truth)}">'


def _name(key: SampleKey) -> str:
    return f"{key.task}/{key.split}/{key.seed}/{key.index}"
