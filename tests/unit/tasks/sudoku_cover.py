"""An oracle that shares no code with the solver: Sudoku as an exact cover."""

from __future__ import annotations

from tests.unit.tasks.sudoku_settings import box_of


def solutions_by_exact_cover(percept: str, limit: int) -> list[str]:
    """Up to `limit` solutions, by Knuth's Algorithm X over sets of named demands."""
    rows = percept.split("\n")
    size = len(rows)
    meets = {
        (r, c, d): {("cell", r, c), ("row", r, d), ("column", c, d), ("box", box_of(size, r, c), d)}
        for r in range(size)
        for c in range(size)
        for d in range(1, size + 1)
    }
    met_by: dict[tuple, set] = {}
    for choice, demands in meets.items():
        for demand in demands:
            met_by.setdefault(demand, set()).add(choice)

    def without_rivals(open_demands: dict[tuple, set], choice: tuple) -> dict[tuple, set]:
        rivals = set().union(*(open_demands[demand] for demand in meets[choice]))
        return {demand: choices - rivals for demand, choices in open_demands.items() if demand not in meets[choice]}

    def extend(open_demands: dict[tuple, set], chosen: list[tuple]) -> None:
        if len(found) == limit:
            return
        if not open_demands:
            digits = {(r, c): str(d) for r, c, d in chosen}
            found.append("\n".join("".join(digits[r, c] for c in range(size)) for r in range(size)))
            return
        for choice in sorted(min(open_demands.values(), key=len)):
            extend(without_rivals(open_demands, choice), [*chosen, choice])

    found: list[str] = []
    givens = [(r, c, int(rows[r][c])) for r in range(size) for c in range(size) if rows[r][c] != "0"]
    for given in givens:
        if any(demand not in met_by for demand in meets[given]):
            return []
        met_by = without_rivals(met_by, given)
    extend(met_by, givens)
    return found
