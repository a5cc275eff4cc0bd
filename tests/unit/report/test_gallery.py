"""The gallery page: one file with every sample, without scripts and network access."""

import re
from base64 import b64decode
from html.parser import HTMLParser

from percasym.report.gallery import Section, gallery
from percasym.types import Demonstration, Prompt, Sample, SampleKey

NASTY = "</pre><script>alert('x')</script>&\""
PNG = b"\x89PNG\r\n\x1a\n fake"


def sample(image: bytes | None = PNG) -> Sample:
    key = SampleKey(task="sudoku", split="test", seed=0, index=7)
    demonstration = Demonstration(perception="<perception>12</perception>", reasoning=f"{NASTY}<answer>3</answer>")
    prompt = Prompt(key=key, image=image, question=f"Q {NASTY}")
    return Sample(prompt=prompt, truth=f"12 {NASTY}", solution=f"3 {NASTY}", demonstration=demonstration)


def page(*samples: Sample) -> str:
    return gallery(f"Title {NASTY}", [Section(title=f"Easy {NASTY}", note=NASTY, samples=samples)])


class Reader(HTMLParser):
    """Collects the text of each marked span, all tags, and whether tags nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.stack, self.tags, self.text = [], set(), {}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in ("meta", "img"):
            self.stack.append((tag, dict(attrs).get("class")))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if self.stack:
            self.text.setdefault(self.stack[-1][1], []).append(data)


def test_the_two_spans_are_marked_and_whole() -> None:
    read = Reader(page(sample()))
    assert read.stack == []
    assert "".join(read.text["perception"]).endswith("<perception>12</perception>")
    assert "".join(read.text["reasoning"]).endswith(f"{NASTY}<answer>3</answer>")


def test_the_text_of_a_sample_is_escaped() -> None:
    assert "script" not in Reader(page(sample())).tags
    assert "script" in Reader(f"<p>{NASTY.removeprefix('</pre>')}</p>").tags, "the check can fail"


def test_the_picture_is_inlined_and_the_network_is_forbidden() -> None:
    html = page(sample())
    (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    assert b64decode(data) == PNG
    assert not re.findall(r"https?://|url\(|@import|<link", html)
    assert "default-src 'none'" in html


def test_the_key_names_the_sample() -> None:
    assert "sudoku/test/0/7" in page(sample())


def test_a_sample_without_a_picture_says_so() -> None:
    html = page(sample(image=None))
    assert "<img" not in html
    assert "the percept is given as text" in html
