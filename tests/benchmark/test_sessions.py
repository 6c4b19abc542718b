"""The interval of a change between two runs."""

import math

import numpy as np
import pytest

from optkit.benchmark.sessions import change, paired


def test_the_interval_covers_the_truth_when_runs_differ_as_was_told() -> None:
    """Two runs whose common level varies by 5 %, blocks by 2 %: without that level the interval would cover in a fifth of trials."""
    random = np.random.default_rng(0)
    covered, blind = 0, 0
    for _ in range(1000):
        old, new = ((random.normal(0, 0.05 / math.sqrt(2)) + random.normal(0, 0.02, 10)) for _ in range(2))
        wide, narrow = change(list(old), list(new), 0.05), change(list(old), list(new), 0.0)
        assert wide is not None
        assert narrow is not None
        covered += wide.low <= 1 <= wide.high
        blind += narrow.low <= 1 <= narrow.high
    assert covered >= 940
    assert blind < 600


def test_a_change_is_found() -> None:
    found = change([0.0, 0.01, -0.01], [math.log(1.2), math.log(1.21), math.log(1.19)], 0.03)
    assert found is not None
    assert found.ratio == pytest.approx(1.2, abs=0.01)
    assert 1.05 < found.low < 1.2 < found.high < 1.35


def test_one_block_has_no_interval() -> None:
    assert change([0.0], [0.0, 0.1], 0.03) is None
    assert paired([], []) is None
    assert paired([0.0], [0.1]) is None


def test_blocks_without_any_spread_keep_that_between_the_runs() -> None:
    found = change([0.0, 0.0], [0.0, 0.0], 0.03)
    assert found is not None
    assert found.high == pytest.approx(math.exp(1.96 * 0.03))


def test_pairs_take_out_what_both_share() -> None:
    shared = np.random.default_rng(0).normal(0, 0.5, 10)
    found = paired(list(shared), list(shared + 0.1 + np.random.default_rng(1).normal(0, 0.001, 10)))
    assert found is not None
    assert found.ratio == pytest.approx(math.exp(0.1), rel=0.01)
    assert found.high / found.low < 1.01
