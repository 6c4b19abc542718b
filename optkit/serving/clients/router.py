"""A router between variants of a model: versions, models or servers. It needs the standard library only.

    router = Router({"1": Model(url, version="1").infer, "2": Model(url, version="2").infer}, {"1": 9, "2": 1})
    answer = router.infer("user-42", image)
    print(router.stats()["2"])

While the weights do not change, a key goes to the same variant in every process. A change of weights moves as few keys as possible: if one
weight rises, keys move only to its variant; if it falls, keys move only away from its variant. The method is weighted rendezvous hashing:
every variant gets a number u for the key, and the smallest -ln(u) / weight wins (Schindelhauer and Schomaker, "Weighted distributed hash
tables", SPAA 2005, the logarithmic method; rendezvous hashing: Thaler and Ravishankar, 1998).
"""

import hashlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

KEPT_CALLS = 10_000  # of each variant; percentiles cover the last calls
MIN_CALLS_ABOVE = 5  # with fewer calls above it, a percentile shows only one or two outliers


@dataclass(frozen=True)
class VariantStats:
    """The counts and latencies of one variant so far.

    Latencies are those of answers, without errors. A percentile is None if fewer than five calls lie above it: p50 needs 10 answers,
    p90 needs 50, and p99 needs 500.
    """

    calls: int  # answers and errors
    errors: int
    taken_over: int  # answers after another variant had failed
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None


class Router(Generic[P, R]):
    """Calls one of several variants by a key. It is thread-safe if the variants are."""

    def __init__(
        self, variants: Mapping[str, Callable[P, R]], weights: Mapping[str, float], *, fail_over: bool = False
    ) -> None:
        """Set up the router.

        Args:
            variants: name -> function, for example the method `infer` of a client.
            weights: name -> share of the keys, relative to the sum. A variant with weight 0 gets no keys.
            fail_over: if a variant fails, call the next one. Otherwise its error is raised.

        Raises:
            ValueError: the names differ, a weight is negative or not finite, or all weights are 0.
        """
        self._variants = dict(variants)
        self._fail_over = fail_over
        self._lock = threading.Lock()
        self._counts = {name: _Counts() for name in self._variants}
        self._salts = {name: hashlib.blake2b(name.encode(), digest_size=16).digest() for name in self._variants}
        self._weights: dict[str, float] = {}
        self.set_weights(weights)

    @property
    def weights(self) -> dict[str, float]:
        """The current weights."""
        with self._lock:
            return dict(self._weights)

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """Change the weights of all variants at once.

        Raises:
            ValueError: the names differ, a weight is negative or not finite, or all weights are 0. The old weights stay.
        """
        if set(weights) != set(self._variants):
            raise ValueError(
                f"weights: got {', '.join(weights) or 'none'}; expected one for each of {', '.join(self._variants)}"
            )
        wrong = [f"{name}: {weight}" for name, weight in weights.items() if not 0 <= weight < math.inf]
        if wrong:
            raise ValueError(f"weights: {', '.join(wrong)}; expected finite numbers of at least 0")
        if not any(weights.values()):
            raise ValueError("weights: all are 0; expected at least one above 0")
        with self._lock:
            self._weights = {name: float(weight) for name, weight in weights.items()}

    def pick(self, key: str | bytes | int) -> str:
        """Return the variant of a key, without calling it."""
        return self._ranked(key)[0]

    def infer(self, key: str | bytes | int, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the variant of a key, and count its time or its error.

        A ValueError means that the input is invalid. It is raised and not counted.

        Raises:
            Exception: the error of the variant; with `fail_over`, the error of the last variant.
        """
        names = self._ranked(key)
        last = len(names) - 1 if self._fail_over else 0
        for place, name in enumerate(names[:last]):
            try:
                return self._call(name, place > 0, *args, **kwargs)
            except ValueError:
                raise
            except Exception:  # counted; the next variant is called
                continue
        return self._call(names[last], last > 0, *args, **kwargs)

    def stats(self) -> dict[str, VariantStats]:
        """Return the counts and latencies of every variant so far."""
        with self._lock:
            return {name: counts.stats() for name, counts in self._counts.items()}

    def _ranked(self, key: str | bytes | int) -> list[str]:
        """Return the variants with a weight above 0, in the order in which they are called for a key."""
        raw = key if isinstance(key, bytes) else str(key).encode()
        weights = {name: weight for name, weight in self.weights.items() if weight}
        drawn = {name: -math.log(_uniform(raw, self._salts[name])) / weight for name, weight in weights.items()}
        return sorted(drawn, key=lambda name: drawn[name])

    def _call(self, name: str, takes_over: bool, *args: P.args, **kwargs: P.kwargs) -> R:
        began = time.perf_counter()
        try:
            answer = self._variants[name](*args, **kwargs)
        except ValueError:
            raise
        except Exception:
            with self._lock:
                self._counts[name].errors += 1
            raise
        seconds = time.perf_counter() - began
        with self._lock:
            self._counts[name].answered(seconds * 1000, takes_over)
        return answer


class _Counts:
    """The counts of one variant. The router holds the lock."""

    def __init__(self) -> None:
        self.answers = self.errors = self.taken_over = 0
        self.times_ms: deque[float] = deque(maxlen=KEPT_CALLS)

    def answered(self, ms: float, took_over: bool) -> None:
        self.answers += 1
        self.taken_over += took_over
        self.times_ms.append(ms)

    def stats(self) -> VariantStats:
        times = sorted(self.times_ms)
        return VariantStats(
            calls=self.answers + self.errors,
            errors=self.errors,
            taken_over=self.taken_over,
            p50_ms=percentile(times, 50),
            p90_ms=percentile(times, 90),
            p99_ms=percentile(times, 99),
        )


def percentile(ordered: list[float], percent: float) -> float | None:
    """Return a percentile of sorted numbers by linear interpolation, or None if too few numbers lie above it."""
    if len(ordered) * (100 - percent) < 100 * MIN_CALLS_ABOVE:
        return None
    at = (len(ordered) - 1) * percent / 100
    low, share = int(at), at % 1
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] * (1 - share) + ordered[high] * share


def _uniform(key: bytes, salt: bytes) -> float:
    """Return a number in (0, 1) for a key and a variant, equal in every process and on every machine."""
    drawn = int.from_bytes(hashlib.blake2b(key, digest_size=8, key=salt).digest(), "big")
    return ((drawn >> 12) + 0.5) / 2**52  # 52 bits: adding 0.5 is exact, and the result is neither 0 nor 1
