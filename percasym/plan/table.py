"""A plan for people."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table

from percasym.models.adapt import PARTS
from percasym.plan.plan import Plan


def table(plan: Plan) -> RenderableType:
    """Parameters, samples, a step, and the memory of one GPU."""
    return Group(_parameters(plan), _memory(plan), *_lines(plan))


def _parameters(plan: Plan) -> Table:
    shown = Table("parameters", *PARTS, "all", title_justify="left")
    base, trained = plan.parameters.base, plan.parameters.trained
    shown.add_row("checkpoint", *(_count(base[part]) for part in PARTS), _count(sum(base.values())))
    if plan.layout.adapters:
        adapters = plan.parameters.adapters
        shown.add_row("adapters", *(_count(adapters[part]) for part in PARTS), _count(sum(adapters.values())))
    shown.add_row("trained", *(_count(trained[part]) for part in PARTS), _count(plan.parameters.num_trained))
    return _numbers(shown)


def _memory(plan: Plan) -> Table:
    columns = {"training": plan.training, "evaluation": plan.evaluation} | ({"rollouts": plan.rollouts} if plan.rollouts else {})
    shown = Table(f"GB on each of {plan.layout.num_ranks} GPU{'s' * (plan.layout.num_ranks > 1)}", *columns)
    for part in dict.fromkeys(part for held in columns.values() for part in held):
        sizes = [held.get(part, 0) for held in columns.values()]
        if any(sizes):
            shown.add_row(part, *map(_gb, sizes))
    shown.add_section()
    shown.add_row("all", *(_gb(sum(held.values())) for held in columns.values()))
    return _numbers(shown)


def _lines(plan: Plan) -> list[str]:
    lengths, work = plan.lengths, plan.work
    lines = [
        f"A sample: {lengths.total:,.0f} tokens (longest {lengths.longest:,}), {lengths.picture} of them the picture, "
        f"{lengths.perception:.0f} perception and {lengths.reasoning:,.0f} reasoning: {100 * lengths.share:.1f} % of what is supervised. "
        f"Counted with {lengths.source}.",
        f"A step: {work.tokens:,.0f} tokens, {work.supervised:,.0f} of them supervised, {work.flops:.2e} operations "
        f"({work.model_flops:.2e} without computing anything twice"
        f"{f', {work.sampling_flops:.2e} of them sampling' if work.sampling_flops else ''}).",
    ]
    if plan.layout.offload:
        from percasym.plan.memory import on_host

        lines.append(f"In the host's memory: {_gb(sum(on_host(plan.parameters, plan.layout).values()))} GB for each GPU.")
    limits = {"evaluation": plan.layout.evaluation} | ({"rollout": plan.layout.sampled} if plan.layout.sampled else {})
    for section, limit in limits.items():
        if plan.lengths.perception + plan.lengths.reasoning > limit.max_new_tokens:
            lines.append(f"{section}.max_new_tokens={limit.max_new_tokens} cuts the mean response short. Raise it.")
    size = f"{plan.gpu_bytes / 1e9:g} GB"
    if plan.fits:
        return [*lines, f"It fits: {_gb(plan.peak)} of {size}."]
    lines.append(f"It does not fit: {_gb(plan.peak)} of {size}.")
    lines += [f"  {words}: {_gb(peak)} GB{', which fits' if peak <= plan.gpu_bytes else ''}" for words, peak in plan.remedies()]
    return lines


def _numbers(shown: Table) -> Table:
    for column in shown.columns[1:]:
        column.justify = "right"
    return shown


def _count(number: int) -> str:
    return f"{number:,}"


def _gb(number: int) -> str:
    return f"{number / 1e9:.{1 if number >= 10**9 else 3}f}" if number else "-"
