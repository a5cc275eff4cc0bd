"""Tests that need a processor which not every machine has."""

from __future__ import annotations

import pytest

from percasym.objectives.onednn import multiplies_bfloat16

needs_bfloat16 = pytest.mark.skipif(not multiplies_bfloat16(), reason="this processor has neither AVX512_BF16 nor AMX")
