"""Rollouts and contexts for the laws of rewards: the fixtures of tests/unit/rewards."""

from tests.unit.rewards.conftest import context, hash_policy, reward, rollout, sample, task

__all__ = ["context", "hash_policy", "reward", "rollout", "sample", "task"]
