"""percasym: why post-training a vision-language model teaches it to think more than to see, and what fixes it.

The names below are the public interface (docs/in-your-trainer.md); each loads its module when it is first used, so `import percasym`
loads neither torch nor transformers. What is not listed here may change between releases.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from percasym.balance.aligned import AlignedMtl as AlignedMtl
    from percasym.balance.base import Balancer as Balancer
    from percasym.balance.base import BalanceState as BalanceState
    from percasym.balance.base import Gramian as Gramian
    from percasym.balance.base import SpanStats as SpanStats
    from percasym.balance.cagrad import CaGrad as CaGrad
    from percasym.balance.dwa import DynamicWeightAverage as DynamicWeightAverage
    from percasym.balance.famo import Famo as Famo
    from percasym.balance.fixed import Fixed as Fixed
    from percasym.balance.gradnorm import GradNorm as GradNorm
    from percasym.balance.hidden import Hidden as Hidden
    from percasym.balance.inverse_loss import InverseLoss as InverseLoss
    from percasym.balance.mgda import Mgda as Mgda
    from percasym.balance.nash import NashMtl as NashMtl
    from percasym.balance.ngdiff import NGDiff as NGDiff
    from percasym.balance.none import NoBalance as NoBalance
    from percasym.balance.pcgrad import PcGrad as PcGrad
    from percasym.balance.rlw import RandomLossWeighting as RandomLossWeighting
    from percasym.balance.schedule import Schedule as Schedule
    from percasym.balance.uncertainty import Uncertainty as Uncertainty
    from percasym.balance.upgrad import UpGrad as UpGrad
    from percasym.integrations.audit import audit as audit
    from percasym.integrations.collate import SpanCollator as SpanCollator
    from percasym.integrations.grading import grade as grade
    from percasym.integrations.label import label_spans as label_spans
    from percasym.metrics import contributed as contributed
    from percasym.objectives.span_loss import span_loss as span_loss
    from percasym.tasks.graph_coloring.task import GraphColoring as GraphColoring
    from percasym.tasks.sudoku.task import Sudoku as Sudoku
    from percasym.types import Grade as Grade
    from percasym.types import SampleKey as SampleKey
    from percasym.types import Span as Span

_HOMES = {
    "AlignedMtl": "balance.aligned", "Balancer": "balance.base", "BalanceState": "balance.base", "Gramian": "balance.base",
    "SpanStats": "balance.base", "CaGrad": "balance.cagrad", "DynamicWeightAverage": "balance.dwa", "Famo": "balance.famo",
    "Fixed": "balance.fixed", "GradNorm": "balance.gradnorm", "Hidden": "balance.hidden", "InverseLoss": "balance.inverse_loss",
    "Mgda": "balance.mgda", "NashMtl": "balance.nash", "NGDiff": "balance.ngdiff", "NoBalance": "balance.none", "PcGrad": "balance.pcgrad",
    "RandomLossWeighting": "balance.rlw", "Schedule": "balance.schedule", "Uncertainty": "balance.uncertainty", "UpGrad": "balance.upgrad",
    "audit": "integrations.audit", "SpanCollator": "integrations.collate", "grade": "integrations.grading",
    "label_spans": "integrations.label", "contributed": "metrics", "span_loss": "objectives.span_loss",
    "GraphColoring": "tasks.graph_coloring.task", "Sudoku": "tasks.sudoku.task", "Grade": "types", "SampleKey": "types", "Span": "types",
}  # fmt: skip
"""Name -> the module of this package that defines it."""

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    """A public name, from its module (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
