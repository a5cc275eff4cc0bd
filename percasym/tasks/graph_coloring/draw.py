"""Draw a graph: nodes as lettered discs, edges as straight lines.

No line touches a third node. Positions do not depend on the edges, so two percepts that differ in one edge differ in one line of the
picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from random import Random
from typing import Literal

from percasym.tasks.canvas import Canvas, Look, Point
from percasym.tasks.graph_coloring.graph import LETTERS, Graph, all_pairs

Layout = Literal["ring", "turned", "scattered"]
"""Positions of the nodes: evenly on a circle, clockwise from A at the top; on a rotated circle in random order; anywhere. In the last
two the letters must be located, and in the last lines cross at all angles."""

LEGIBLE_RADIUS_PX = 6.2
"""Smallest disc with a legible letter: its capital is 7 pixels high. At 5.0, E resembles L (inspected at 64 pixels)."""

LARGEST_RADIUS = 0.11
"""Maximum radius of a disc, as a share of the picture's side: with few nodes a larger one would hide the lines."""

CLEARANCE = 1.2
"""Minimum distance of a line from the centre of a third node, in radii of its disc, so that the stroke does not touch the disc."""

SHRINKING = 0.6
"""Radius of scattered discs relative to those on a circle, to leave room for moves."""

MOVES_PER_NODE = 20
"""Moves that scatter a circle: 60 per node scatter 5 nodes no further; 20 take 3 ms for 5 nodes, 40 ms for 15 (measured)."""


def disc_radius(num_nodes: int, image_px: int) -> float:
    """Radius in pixels of discs on a circle such that every chord stays clear of every third node.

    A chord that skips one node of n passes it at R (1 - cos(2 pi / n)), with R the radius of the circle; the
    circle and the discs on it must fit into the picture.
    """
    room = image_px / 2 - 1
    if num_nodes < 3:
        return LARGEST_RADIUS * image_px
    share = 0.98 * (1 - math.cos(2 * math.pi / num_nodes)) / CLEARANCE  # 2 % smaller, to leave room for moves.
    return min(LARGEST_RADIUS * image_px, room * share / (1 + share))


def least_image_px(num_nodes: int) -> int:
    """The side of the smallest picture with legible letters for this many nodes."""
    return next(side for side in range(16, 1000) if disc_radius(num_nodes, side) >= LEGIBLE_RADIUS_PX)


def draw_graph_png(graph: Graph, look: Look, layout: Layout, *, place_rng: Random, look_rng: Random) -> bytes:
    """The picture as PNG bytes; `place_rng` decides the positions of the nodes, `look_rng` the appearance of the marks."""
    canvas = Canvas(look, look_rng)
    points, radius = places(graph.num_nodes, look, layout, place_rng)
    stroke = max(1.0, radius / 8)
    for i, j in graph.edges:
        canvas.line(points[i], points[j], stroke)
    for letter, point in zip(LETTERS, points, strict=False):
        canvas.disc(point, radius, stroke)
        canvas.glyph(letter, point, 2 * radius)
    return canvas.png()


def places(num_nodes: int, look: Look, layout: Layout, rng: Random) -> tuple[list[Point], float]:
    """The centres of the discs and their radius; no line between two centres touches a third disc."""
    side = look.image_px
    largest = disc_radius(num_nodes, side)
    if layout == "ring":
        return _jittered(_circle(num_nodes, side / 2, largest, turn=0.0), look, largest, rng), largest
    radius = largest if layout == "turned" else max(min(largest, LEGIBLE_RADIUS_PX), SHRINKING * largest)
    points = _circle(num_nodes, side / 2, radius, turn=rng.uniform(0, 2 * math.pi))
    rng.shuffle(points)
    if layout == "scattered":
        _scatter(points, side, radius, rng)
    return _jittered(points, look, radius, rng), radius


def _circle(num_nodes: int, centre: float, radius: float, turn: float) -> list[Point]:
    reach = centre - radius - 1
    angles = (turn + 2 * math.pi * node / num_nodes for node in range(num_nodes))
    return [(centre + reach * math.sin(angle), centre - reach * math.cos(angle)) for angle in angles]


def _scatter(points: list[Point], side: int, radius: float, rng: Random) -> None:
    """Move nodes one at a time, half of the moves far and half near, if all lines stay clear of all discs.

    More nodes leave less room: 5 end up anywhere, 15 close to their circle.
    """
    low, high = radius + 1, side - radius - 1
    for _ in range(MOVES_PER_NODE * len(points)):
        node = rng.randrange(len(points))
        x, y = old = points[node]
        far = rng.random() < 0.5
        new = (rng.uniform(low, high), rng.uniform(low, high)) if far else (rng.gauss(x, 2 * radius), rng.gauss(y, 2 * radius))
        points[node] = new
        if not all(low <= v <= high for v in new) or not _is_clear(points, radius, (node,)):
            points[node] = old


def _jittered(points: list[Point], look: Look, radius: float, rng: Random) -> list[Point]:
    """Each point displaced by up to the look's jitter times a disc's width; halved until all lines are clear of all discs."""
    reach, low, high = look.jitter * 2 * radius, radius + 0.5, look.image_px - radius - 0.5
    marks = [(x, y, rng.uniform(-reach, reach), rng.uniform(-reach, reach)) for x, y in points]
    for scale in (1, 1 / 2, 1 / 4, 1 / 8, 1 / 16):
        moved = [(_clamp(x + scale * dx, low, high), _clamp(y + scale * dy, low, high)) for x, y, dx, dy in marks]
        if _is_clear(moved, radius, range(len(moved))):
            return moved
    return points


def _clamp(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def _is_clear(points: list[Point], radius: float, moved: Iterable[int]) -> bool:
    """Whether the discs of the `moved` nodes keep their distance from all discs and lines, and their lines from all discs."""
    nodes = range(len(points))
    for node in moved:
        others = [other for other in nodes if other != node]
        if any(math.dist(points[node], points[other]) < 3 * radius for other in others):
            return False
        lines = ((points[i], points[j]) for i, j in all_pairs(len(points)) if node not in (i, j))
        if any(distance(points[node], *line) < CLEARANCE * radius for line in lines):
            return False
        for other in others:
            line = points[node], points[other]
            if any(distance(points[third], *line) < CLEARANCE * radius for third in others if third != other):
                return False
    return True


def distance(point: Point, start: Point, end: Point) -> float:
    """Distance of a point from a line segment, in pixels.

    >>> distance((0, 1), (-1, 0), (1, 0)), distance((4, 4), (0, 0), (1, 0))
    (1.0, 5.0)
    """
    (x, y), (x0, y0), (x1, y1) = point, start, end
    dx, dy = x1 - x0, y1 - y0
    along = ((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy)
    along = _clamp(along, 0.0, 1.0)
    return math.hypot(x - x0 - along * dx, y - y0 - along * dy)
