"""The router that generated clients bring: shares, stickiness, what a change of weights moves, counts."""

import contextlib
import math
import os
import subprocess
import sys
import threading
from collections import Counter

import pytest
from scipy.stats import binom, chisquare

from optkit.serving.clients.router import Router, percentile

KEYS = [f"user-{i}" for i in range(20_000)]


class Down(Exception):
    pass


def named(name):
    return lambda *args, **kwargs: (name, args, kwargs)


def router(weights, **options):
    return Router({name: named(name) for name in weights}, weights, **options)


def picks(weights, keys=KEYS):
    routing = router(weights)
    return {key: routing.pick(key) for key in keys}


@pytest.mark.parametrize(
    "weights", [{"a": 1, "b": 1}, {"a": 9, "b": 1}, {"a": 5, "b": 3, "c": 2}, {"a": 0.98, "b": 0.02}]
)
def test_shares_follow_the_weights(weights):
    """Each share lies within what 20 000 draws of a fair lottery give in all but one of 10 000 cases."""
    counts = Counter(picks(weights).values())
    for name, weight in weights.items():
        low, high = binom.interval(0.9999, len(KEYS), weight / sum(weights.values()))
        assert low <= counts[name] <= high, (name, counts)


def test_shares_of_other_weights_do_not_fit():
    """The test above can fail: the shares of 9 to 1 are none of 8 to 2."""
    low, high = binom.interval(0.9999, len(KEYS), 0.2)
    assert not low <= Counter(picks({"a": 9, "b": 1}).values())["b"] <= high


def test_keys_in_a_row_are_no_pattern():
    """Integers one after the other fall as evenly as others: the places of one variant are not grouped."""
    routing = router({"a": 1, "b": 1})
    rows = [sum(routing.pick(i) == "a" for i in range(start, start + 100)) for start in range(0, 20_000, 100)]
    assert (
        chisquare(
            [sum(r < 50 for r in rows), sum(r >= 50 for r in rows)],
            [200 * binom.cdf(49, 100, 0.5), 200 * binom.sf(49, 100, 0.5)],
        ).pvalue
        > 1e-4
    )


def test_a_key_always_goes_to_the_same_variant_in_every_process():
    """Other processes and later releases must agree: Python's own hash differs in each process."""
    assert picks({"a": 1, "b": 1}) == picks({"b": 1, "a": 1})
    ours = "".join(picks({"a": 1, "b": 1}, KEYS[:24]).values())
    assert ours == "bbabbbbaabbaaababaababba"
    code = "from optkit.serving.clients.router import Router; import sys; r = Router(dict.fromkeys('ab', print), {'a': 1, 'b': 1})"
    code += "; print(''.join(r.pick(f'user-{i}') for i in range(24)))"
    for seed in ("1", "2"):
        found = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout.strip() == ours
    routing = router({"a": 1, "b": 1})
    assert routing.pick("42") == routing.pick(42) == routing.pick(b"42")


def test_only_the_proportion_of_weights_counts():
    assert picks({"a": 9, "b": 1}) == picks({"a": 0.9, "b": 0.1}) == picks({"a": 900, "b": 100})


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_a_raised_weight_moves_keys_to_that_variant_only_and_no_more_than_must(share):
    """From 1 % to the share: all keys of b stay, and what moves is the difference of the shares."""
    before, after = picks({"a": 0.99, "b": 0.01}), picks({"a": 1 - share, "b": share})
    moved = {key for key in KEYS if before[key] != after[key]}
    assert {after[key] for key in moved} == {"b"}
    low, high = binom.interval(0.9999, len(KEYS), share - 0.01)
    assert low <= len(moved) <= high


def test_among_three_only_the_changed_one_wins_or_loses_keys():
    before, after = picks({"a": 4, "b": 4, "c": 2}), picks({"a": 4, "b": 4, "c": 5})
    assert {after[key] for key in KEYS if before[key] != after[key]} == {"c"}
    back = picks({"a": 4, "b": 4, "c": 0})
    assert {before[key] for key in KEYS if before[key] != back[key]} == {"c"}


def test_the_call_passes_through_and_is_counted():
    routing = router({"a": 1, "b": 0})
    assert routing.infer("x", 1, two=2) == ("a", (1,), {"two": 2})
    stats = routing.stats()
    assert (stats["a"].calls, stats["a"].errors, stats["a"].p50_ms) == (1, 0, None)
    assert stats["b"].calls == 0


def failing(*_):
    raise Down("down")


def test_an_error_is_counted_and_passes_on():
    routing = Router({"a": failing, "b": named("b")}, {"a": 1, "b": 1})
    mine = [key for key in KEYS[:100] if routing.pick(key) == "a"]
    for key in mine:
        with pytest.raises(Down):
            routing.infer(key)
    assert (routing.stats()["a"].calls, routing.stats()["a"].errors) == (len(mine), len(mine))
    assert routing.stats()["b"].calls == 0


def test_another_takes_over_where_that_is_wished():
    routing = Router({"a": failing, "b": named("b")}, {"a": 1, "b": 1}, fail_over=True)
    mine = [key for key in KEYS[:100] if routing.pick(key) == "a"]
    assert {routing.infer(key)[0] for key in mine} == {"b"}
    assert routing.stats()["a"].errors == routing.stats()["b"].taken_over == len(mine) > 20
    everything = Router({"a": failing, "b": failing}, {"a": 1, "b": 1}, fail_over=True)
    with pytest.raises(Down):
        everything.infer("x")
    assert [stats.errors for stats in everything.stats().values()] == [1, 1]


def test_a_variant_of_weight_0_takes_nothing_over():
    routing = Router({"a": failing, "b": named("b")}, {"a": 1, "b": 0}, fail_over=True)
    with pytest.raises(Down):
        routing.infer("x")


def test_a_wrong_input_is_the_callers_and_no_error_of_a_variant():
    def strict(value):
        raise ValueError("wrong shape")

    routing = Router({"a": strict, "b": strict}, {"a": 1, "b": 1}, fail_over=True)
    with pytest.raises(ValueError, match="wrong shape"):
        routing.infer("x", 1)
    assert [stats.calls for stats in routing.stats().values()] == [0, 0]


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ({"a": 1}, "got a; expected one for each of a, b"),
        ({"a": 1, "b": 1, "c": 1}, "expected one for each of a, b"),
        ({"a": 1, "b": -1}, "b: -1; expected finite numbers"),
        ({"a": 1, "b": math.nan}, "b: nan; expected finite numbers"),
        ({"a": 1, "b": math.inf}, "b: inf; expected finite numbers"),
        ({"a": 0, "b": 0}, "all are 0"),
    ],
)
def test_weights_that_make_no_sense_are_refused_and_the_old_ones_stay(weights, says):
    routing = router({"a": 9, "b": 1})
    with pytest.raises(ValueError, match=says):
        routing.set_weights(weights)
    assert routing.weights == {"a": 9, "b": 1}
    with pytest.raises(ValueError, match=says):
        Router({"a": named("a"), "b": named("b")}, weights)


def test_threads_lose_no_count_while_weights_change():
    routing = Router({"a": failing, "b": named("b")}, {"a": 1, "b": 1})

    def work(start):
        for i in range(2000):
            with contextlib.suppress(Down):
                routing.infer(start + i)
            if i % 100 == 0:
                routing.set_weights({"a": 1 + i % 3, "b": 1})

    threads = [threading.Thread(target=work, args=(10_000 * n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = routing.stats()
    assert stats["a"].calls + stats["b"].calls == 16_000
    assert (stats["a"].errors, stats["b"].errors) == (stats["a"].calls, 0)
    assert stats["b"].p50_ms is not None


def test_percentiles_where_the_count_allows():
    import numpy as np

    times = sorted(np.random.default_rng(0).exponential(size=500).tolist())
    for percent in (50, 90, 99):
        assert percentile(times, percent) == pytest.approx(np.percentile(times, percent))
    assert percentile(times[:499], 99) is None
    assert (percentile(times[:9], 50), percentile(times[:49], 90)) == (None, None)
    assert percentile(times[:10], 50) is not None
    assert percentile(times[:50], 90) is not None
