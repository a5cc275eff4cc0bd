"""Group-relative advantages: rewards of the rollouts of each prompt in, one advantage for each rollout out.

Shapes: P prompts of the whole step (over all ranks), G rollouts of each, B rows, T tokens. Rewards are float64 in [0, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor

from percasym.config.paradigm import Component, Mixing
from percasym.types import Span

EPS = 1e-4
"""Added to a standard deviation before dividing by it, as in TRL; not in the papers."""


def zero_variance(rewards: Tensor) -> Tensor:
    """[P] bool: the groups in which all of `rewards` [P, G] are equal, so that no rollout has an advantage.

    >>> zero_variance(torch.tensor([[1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)).tolist()
    [True, False]
    """
    return (rewards == rewards[:, :1]).all(1)  # Exact: a small spread is a signal, and `EPS` bounds what becomes of rounding.


def uninformative(perception: Tensor, outcome: Tensor, weight: float, by: Component) -> Tensor:
    """[P] bool: the groups that dynamic sampling replaces, decided on the rewards [P, G] apart, never on their mixture.

    - by: which reward must vary within a group for it to be kept: the outcome, perception, or either. A reward of weight 0 under
      w = `weight` does not count; the other one then decides.

    A mixture has a variance wherever one component has. Filtered by it, a group that fails throughout is kept for the other reward alone,
    and standard deviations turn small differences of it into advantages of full size. Equally, a mixture may be constant where both
    components vary.

    Source: DAPO (arXiv:2503.14476), section 3.2, whose criterion is the accuracy; what filtering by a shaped reward costs: verl-recipe 125.

    >>> seen, solved = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    >>> [uninformative(seen, solved, 0.3, by).item() for by in ("outcome", "perception", "either")]
    [True, False, False]
    """
    constant = {"perception": zero_variance(perception), "outcome": zero_variance(outcome)}
    if weight in (0, 1):
        return constant["perception" if weight else "outcome"]
    return constant["perception"] & constant["outcome"] if by == "either" else constant[by]


def group_normalized(rewards: Tensor, scale: bool) -> Tensor:
    """[P, G] advantages from `rewards` [P, G]: the reward minus its group's mean, divided by its standard deviation if `scale`.

        A_i = (r_i - mean(r)) / (std(r) + EPS)

    - std: of a sample (G - 1 in the denominator), as in TRL.
    - A group of equal rewards has advantages of exactly 0.

    Source: Shao et al. 2024, "DeepSeekMath" (GRPO, arXiv:2402.03300), section 4.1.2; without the division, Liu et al. 2025,
    "Understanding R1-Zero-Like Training" (Dr. GRPO, arXiv:2503.20783): the division gives groups with little variance the largest weight.

    >>> group_normalized(torch.tensor([[0.0, 1.0, 1.0, 0.0]], dtype=torch.float64), scale=False).tolist()
    [[-0.5, 0.5, 0.5, -0.5]]
    """
    centred = rewards - rewards.mean(1, keepdim=True)
    centred = centred.masked_fill(zero_variance(rewards)[:, None], 0.0)
    return centred / (rewards.std(1, keepdim=True) + EPS) if scale else centred


def mixed(perception: Tensor, outcome: Tensor, weight: float, mixing: Mixing, normalize: bool) -> Tensor:
    """[P, G] advantages of R = w a_p + (1 - w) a, from both rewards [P, G] and w = `weight`.

    - sum_then_normalize: the advantage of w r_p + (1 - w) r_o. Within a group the reward with the larger variance dominates, for every w.
    - normalize_then_sum: w A_p + (1 - w) A_o, each advantage normalised by its own reward, so that w alone weights them. With
      `normalize`, the P * G sums are then divided by their standard deviation (plus EPS), so that the update size does not depend on w.
      (GDPO also subtracts their mean, which is 0, as in every group.)

    Source: R, arXiv:2605.29496; normalize_then_sum, Liu et al. 2026, "GDPO" (arXiv:2601.05242).
    """
    if mixing == "sum_then_normalize":
        return group_normalized(weight * perception + (1 - weight) * outcome, normalize)
    total = weight * group_normalized(perception, normalize) + (1 - weight) * group_normalized(outcome, normalize)
    return total / (total.std() + EPS) if normalize else total


def on_spans(labels: Tensor, perception: Tensor, reasoning: Tensor) -> Tensor:
    """[B, T] float32 advantages of tokens: `perception` [B] on the perception tokens of each row, `reasoning` [B] on its reasoning tokens.

    Zero elsewhere. Different values route each reward to its span; equal values are one advantage for the whole completion.

    >>> on_spans(torch.tensor([[-1, 0, 1, -1]]), torch.tensor([2.0]), torch.tensor([-3.0])).tolist()
    [[0.0, 2.0, -3.0, 0.0]]
    """
    of_reasoning = torch.where(labels == Span.reasoning, reasoning[:, None], 0.0)
    return torch.where(labels == Span.perception, perception[:, None], of_reasoning).float()
