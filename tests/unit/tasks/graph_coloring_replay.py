"""A reader of demonstrations of graph colouring with its own board, which believes no sentence of them.

It shares no code with `search` and `explain`; the chromatic number is its own, too.
"""

from __future__ import annotations

import re
from itertools import product

from percasym.tasks.graph_coloring.explain import explain
from percasym.tasks.graph_coloring.graph import read_graph, write_answer
from percasym.tasks.graph_coloring.search import found, search
from percasym.types import SampleKey

VISIT = re.compile(r"(?P<node>[A-O])(?::| next to (?P<near>[A-O ]+)\.)(?P<rest>.*)")
REST = re.compile(
    r"(?: Try (?P<slip>\d+)\. (?P<clash>[A-O]) is (?P<same>\d+) too\. Undo\.)?"
    r"(?P<colored>(?: [A-O] (?:\d+|open)[,.])*)"
    r"(?: Taken (?P<taken>none|[\d ]+)\.)?"
    r"(?: Options (?P<options>none|[\d ]+)\.)?"
    r"(?P<stuck> Stuck\.)?"
    r"(?: Set (?:(?P<named>[A-O]) )?(?P<set>\d+)\.)?"
)
UNDO = re.compile(
    r"Undo (?P<node>[A-O])(?:, (?:(?P<none>no option)|options? (?P<left>[\d ]+)) left)?\.(?: Set (?:(?P<named>[A-O]) )?(?P<set>\d+)\.)?"
)
CHECK = re.compile(r"Check ([A-O])([A-O]): (\d+) and (\d+) differ\.")
LONG_CHECK = re.compile(r"Check ([A-O])([A-O]): ([A-O]) is (\d+), ([A-O]) is (\d+), they differ\.")


def numbers(text: str | None) -> list[int]:
    return [] if text in (None, "none") else [int(word) for word in text.split()]


class Replay:
    """Reads a demonstration line by line; raises AssertionError at the first sentence that is not true."""

    def __init__(self, percept: str, verbosity: int) -> None:
        count, *edges = percept.replace(":", "").split()
        self.nodes = "ABCDEFGHIJKLMNO"[: int(count)]
        self.edges = edges
        self.near = {node: [x for x in self.nodes if node + x in edges or x + node in edges] for node in self.nodes}
        self.verbosity = verbosity
        self.limit = 0
        self.refuted = [1] if edges else []
        self.painted: list[tuple[str, int]] = []
        self.untried: list[list[int]] = []
        self.dead = False
        self.works = False
        self.listed: list[str] = []
        self.order: list[str] | None = None
        self.checked: list[str] = []
        self.remarks: list[str] = []
        self.num_slips = self.num_visits_with_painted_neighbor = 0
        self.num_retreats_to_an_option = 0

    def read(self, reasoning: str, answer: str) -> None:
        assert reasoning.startswith("\n")
        for line in reasoning[1:].split("\n"):
            self.line(line)
        colors = dict(self.painted)
        assert len(colors) == len(self.nodes)
        assert answer == " ".join(f"{node}{colors[node]}" for node in self.nodes)
        if self.verbosity >= 1:
            assert self.works
            assert self.refuted == list(range(1, self.limit))
        if self.verbosity >= 2:
            assert self.listed == list(self.nodes)
            assert self.order is not None
            assert self.checked == self.edges
        assert self.remarks == (["edge", "alike", "least"] if self.verbosity >= 3 else [])
        assert all(colors[x] != colors[y] for x, y in self.edges)
        assert len(set(colors.values())) == self.limit == fewest_colors(self.nodes, self.edges)

    def line(self, line: str) -> None:
        if match := re.fullmatch(r"Try (\d+) colors\.", line):
            assert not self.painted
            assert not self.dead
            if self.verbosity >= 1:
                assert int(match[1]) == self.refuted[-1] + 1
            self.limit = int(match[1])
        elif match := re.fullmatch(r"(\d+) colors fail\.", line):
            assert self.dead
            assert not self.painted
            assert int(match[1]) == self.limit
            self.refuted.append(self.limit)
            self.dead = False
        elif match := re.fullmatch(r"(\d+) colors work\.", line):
            assert int(match[1]) == self.limit
            assert len(self.painted) == len(self.nodes)
            self.works = True
        elif match := re.fullmatch(r"Order ([A-O ]+)\.", line):
            self.order = match[1].split()
            assert sorted(self.order) == list(self.nodes)
        elif match := UNDO.fullmatch(line):
            self.undo(match)
        elif line.startswith("Check"):
            self.check(line)
        elif match := re.fullmatch(r"([A-O]{2}) is an edge, so 1 color fails\.", line):
            assert match[1] in self.edges
            self.remarks.append("edge")
        elif match := re.fullmatch(r"Used ([\d ]+)\. (\d+) colors? fails?, so (\d+) is the least\.", line):
            assert numbers(match[1]) == sorted({color for _, color in self.painted})
            assert int(match[2]) == self.refuted[-1]
            assert int(match[3]) == self.limit == int(match[2]) + 1
            assert self.works
            self.remarks.append("least")
        elif line == "New colors are alike, so only the least new color is an option.":
            self.remarks.append("alike")  # True of every graph.
        elif not self.limit:
            match = re.fullmatch(r"([A-O]) next to ([A-O ]+)\.", line)
            assert match, line
            assert match[2].split() == self.near[match[1]]
            self.listed.append(match[1])
        else:
            match = VISIT.fullmatch(line)
            assert match, line
            self.visit(match)

    def visit(self, match: re.Match[str]) -> None:
        node, colors = match["node"], dict(self.painted)
        rest = REST.fullmatch(match["rest"])
        assert rest, match[0]
        assert self.limit
        assert not self.dead
        assert not self.works
        assert node not in colors
        assert self.order is None or node == self.order[len(self.painted)]
        assert match["near"] is None or match["near"].split() == self.near[node]
        taken = {colors[x]: x for x in reversed(self.near[node]) if x in colors}
        self.num_visits_with_painted_neighbor += bool(taken)
        if rest["slip"]:
            self.num_slips += 1
            assert rest["slip"] == rest["same"]
            assert taken[int(rest["slip"])] == rest["clash"]
        stated = re.findall(r"([A-O]) (\d+|open)", rest["colored"])
        expected = self.near[node] if match["near"] else [x for x in self.near[node] if x in colors]
        assert stated == [(x, str(colors.get(x, "open"))) for x in expected]
        in_use = max(colors.values(), default=0)
        assert set(colors.values()) == set(range(1, in_use + 1))  # Or "the least new colour" would not be in_use + 1.
        options = [color for color in range(1, min(in_use + 1, self.limit) + 1) if color not in taken]
        assert rest["taken"] is None or numbers(rest["taken"]) == sorted(taken)
        assert rest["options"] is None or numbers(rest["options"]) == options
        assert not rest["stuck"] or not options
        assert bool(rest["set"]) == bool(options)
        assert rest["options"] or rest["stuck"] or options
        if options:
            self.paint(node, rest["named"], int(rest["set"]), options)
        else:
            self.dead = True

    def paint(self, node: str, named: str | None, color: int, options: list[int]) -> None:
        assert named in (None, node)
        assert color in options
        self.painted.append((node, color))
        self.untried.append([option for option in options if option != color])

    def undo(self, match: re.Match[str]) -> None:
        assert self.dead
        (node, _), left = self.painted.pop(), self.untried.pop()
        assert match["node"] == node
        assert not match["none"] or not left
        assert match["left"] is None or numbers(match["left"]) == left != []
        assert bool(match["set"]) == bool(left)  # What is left must be tried before anything else is undone.
        if left:
            self.num_retreats_to_an_option += 1
            self.dead = False
            self.paint(node, match["named"], int(match["set"]), left)

    def check(self, line: str) -> None:
        colors = dict(self.painted)
        assert self.works
        if match := CHECK.fullmatch(line):
            checks = [(match[1], match[2], match[3], match[4])]
        elif match := LONG_CHECK.fullmatch(line):
            assert (match[1], match[2]) == (match[3], match[5])
            checks = [(match[1], match[2], match[4], match[6])]
        else:
            assert re.fullmatch(r"Check(?: [A-O]{2} \d+ \d+,)+ all differ\.", line), line
            checks = re.findall(r" ([A-O])([A-O]) (\d+) (\d+),", line)
        for x, y, a, b in checks:
            assert x + y in self.edges
            assert colors[x] == int(a) != int(b) == colors[y]
            self.checked.append(x + y)


def fewest_colors(nodes: str, edges: list[str]) -> int:
    """The chromatic number by trying colours for all nodes at once, or node by node where that is too many."""
    for limit in range(1, len(nodes) + 1):
        if limit ** len(nodes) <= 5000:
            tries = (dict(zip(nodes, colors, strict=True)) for colors in product(range(limit), repeat=len(nodes)))
            if any(all(colors[x] != colors[y] for x, y in edges) for colors in tries):
                return limit
        elif fits(nodes, edges, {}, limit):
            return limit
    raise AssertionError("a graph never needs more colours than nodes")


def fits(nodes: str, edges: list[str], colors: dict[str, int], limit: int) -> bool:
    if len(colors) == len(nodes):
        return True
    node = nodes[len(colors)]
    taken = {colors[x] for x in colors if x + node in edges}
    return any(fits(nodes, edges, colors | {node: color}, limit) for color in range(limit) if color not in taken)


def graphs() -> dict[str, str]:
    wheel = "6: AB AC AD AE AF BC BF CD DE EF"
    mycielski = "11: AB AE AG AJ BC BF BH CD CG CI DE DH DJ EF EI FK GK HK IK JK"  # Groetzsch's graph: no triangle, four colours.
    return {
        "ring of five": "5: AB AE BC CD DE",
        "wheel": wheel,
        "Groetzsch": mycielski,
        "all joined": "5: AB AC AD AE BC BD BE CD CE DE",
        "tree": "4: AB AC AD",
    }


def demonstration(percept: str, verbosity: int, *, reflect_frac: float, salt: int = 0) -> tuple[str, str]:
    graph = read_graph(percept)
    assert graph
    rng = SampleKey(task="graph_coloring", split="test", seed=0, index=salt).rng("slips")
    steps = tuple(search(graph, rng, reflect_frac))
    return explain(graph, steps, verbosity), write_answer(found(steps))


def replayed(percept: str, verbosity: int, reasoning: str, answer: str) -> Replay:
    replay = Replay(percept, verbosity)
    replay.read(reasoning, answer)
    return replay
