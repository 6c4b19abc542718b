"""Far-reaching values: what saturates, overflows or cancels in a file is right for the values of a normal distribution.

Each kind of value is one feed, or one row of a feed where the inputs share a batch dimension, so that all kinds take few runs. Only what
the reference computes as a finite number is compared, and no closer than the reference itself can be: where an output differs, the reference
also runs on inputs changed in their last digit, and in float64, and the output may differ by a multiple of what that changes. A choice
among equal scores, or the difference of two large numbers, is then not the fault of the file.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from optkit.artifact.findings import OutputParity, Tolerance
from optkit.artifact.tensors import DimRange, Feed, Sizes, TensorSpec, batch_dim, example_sizes
from optkit.checks.faulty_operator import chooses_among_equals, faulty_operator
from optkit.data import Samples, random_feed
from optkit.errors import RunnerError

if TYPE_CHECKING:
    import numpy as np

    from optkit.runners import Runner

_ADVICE = "Write that operation in another way; or give real samples with --data, if its values never reach so far"
_NUDGES = 4  # the order of equal scores is another one in each
_NOISE = 16.0  # times the effect of the last digit of the inputs: the sums of a deep network are added in another order


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of far-reaching values, made of a row of normal ones."""

    text: str
    of: "Callable[[np.ndarray], np.ndarray]"
    scale: float | None = None  # of values that are normal ones times a number


def kinds() -> tuple[Kind, ...]:
    """Return the kinds, the nearest first, so that the first failure says the most."""
    import numpy as np

    def one_large(x: np.ndarray) -> np.ndarray:
        found = (x * 1e-2).ravel()
        found[found.size // 2] = 1000
        return found.reshape(x.shape)

    scaled = tuple(
        Kind(f"normal values times {scale:g}", _times(scale), scale) for scale in (10.0, 30.0, 100.0, 1000.0)
    )
    return (
        Kind("zeros", np.zeros_like),
        Kind("equal values (20)", lambda x: np.full_like(x, 20)),
        Kind("equal values (-20)", lambda x: np.full_like(x, -20)),
        Kind("very small values (1e-40)", _times(1e-40)),
        *scaled,
        Kind("one large value (1000) among small ones", one_large),
        Kind("values around 1000", lambda x: x + 1000),
    )


def _times(scale: float) -> "Callable[[np.ndarray], np.ndarray]":
    return lambda x: x * scale


def far_failures(
    reference: "Runner", candidate: "Runner", samples: Samples, dims: Mapping[str, DimRange], tolerance: Tolerance
) -> list[OutputParity]:
    """Compare two open runners on far-reaching values of every float input, and return the first failure of each output.

    Nothing is compared where no input is a float, or where the reference fails on such values.
    """
    if not any(_reaches(spec) for spec in samples.inputs):
        return []
    found: dict[str, OutputParity] = {}
    for row_kinds, sizes in _plan(samples.inputs, dims):
        feed = far_feed(samples, sizes, row_kinds)
        try:
            expected = reference.infer(feed)
        except RunnerError:
            if len(row_kinds) > 1:  # one kind may be beyond what the model takes; the others are compared alone
                for kind in row_kinds:
                    _compare(reference, candidate, samples, sizes, [kind], tolerance, None, found)
            continue
        _compare(reference, candidate, samples, sizes, row_kinds, tolerance, expected, found)
    return list(found.values())


def _reaches(spec: TensorSpec) -> bool:
    """Whether an input takes far-reaching values: a float that is no mask."""
    return spec.dtype.is_float and "mask" not in spec.name


def _plan(inputs: Sequence[TensorSpec], dims: Mapping[str, DimRange]) -> Iterator[tuple[list[Kind], dict[str, int]]]:
    """Yield the kinds of the rows of each feed, and its sizes."""
    sizes, dim = example_sizes(dims), batch_dim(inputs)
    every = list(kinds())
    if dim is None or dim not in dims:
        yield from (([kind], sizes) for kind in every)
        return
    step = dims[dim].multiple_of
    rows = min(dims[dim].max, max(dims[dim].min, -(-len(every) // step) * step))
    for start in range(0, len(every), rows):
        yield every[start : start + rows], sizes | {dim: rows}


def far_feed(samples: Samples, sizes: Sizes, row_kinds: Sequence[Kind]) -> "dict[str, np.ndarray]":
    """Return a feed whose rows have these kinds of values in turn; with one kind the whole feed has it."""
    feed = samples.at(sizes)
    normal = random_feed(samples.inputs, sizes, 1, values=samples.random)
    for spec in samples.inputs:
        if _reaches(spec):
            feed[spec.name] = _far(normal[spec.name], row_kinds)
    return feed


def _far(normal: "np.ndarray", row_kinds: Sequence[Kind]) -> "np.ndarray":
    import numpy as np

    limits = np.finfo(normal.dtype)
    rows = [normal] if len(row_kinds) == 1 else [normal[i : i + 1] for i in range(len(normal))]
    made = [row_kinds[i % len(row_kinds)].of(row.astype(np.float64)) for i, row in enumerate(rows)]
    return np.ascontiguousarray(
        np.clip(np.concatenate(made) if normal.ndim else made[0], limits.min / 2, limits.max / 2).astype(normal.dtype)
    )


def _compare(
    reference: "Runner",
    candidate: "Runner",
    samples: Samples,
    sizes: Sizes,
    row_kinds: Sequence[Kind],
    tolerance: Tolerance,
    expected: "Mapping[str, np.ndarray] | None",
    found: dict[str, OutputParity],
) -> None:
    """Compare one feed, and add the first failure of each output to `found`."""
    feed = far_feed(samples, sizes, row_kinds)
    try:
        expected = expected or reference.infer(feed)
    except RunnerError:
        return
    try:
        got = candidate.infer(feed)
    except RunnerError as e:
        for name in expected:
            found.setdefault(name, _failed(name, sizes, f"on far-reaching values: {e}"))
        return
    wrong = {
        name: bad for name in expected if (bad := _wrong(expected[name], got.get(name), tolerance, None)) is not None
    }
    if not wrong:
        return
    doubt = _doubt(reference, feed, samples.inputs, expected)
    wrong = {
        name: bad
        for name in wrong
        if (bad := _wrong(expected[name], got.get(name), tolerance, doubt[name])) is not None
    }
    if wrong and chooses_among_equals(reference.artifact, feed):
        for kind in row_kinds if len(row_kinds) > 1 else ():  # other rows may have no equal scores
            _compare(reference, candidate, samples, sizes, [kind], tolerance, None, found)
        return
    for name, bad in wrong.items():
        if name not in found:
            text = _text(expected[name], got[name], bad, row_kinds)
            reach = _right_up_to(reference, candidate, samples, sizes, name, tolerance)
            operator = faulty_operator(reference.artifact, candidate.artifact, feed)
            cause = f". The operator is {operator}" if operator else ""
            found[name] = _failed(name, sizes, f"{text}{reach}{cause}. {_ADVICE}")


def _doubt(
    reference: "Runner", feed: Feed, inputs: Sequence[TensorSpec], expected: "Mapping[str, np.ndarray]"
) -> "dict[str, np.ndarray]":
    """Return for each element of each output how far the reference itself may be off: the largest change by the last digits."""
    import numpy as np

    # Changed inputs in float64, because equal scores of a saturated function are equal in float32 whatever the inputs.
    nudged = [_nudged(feed, inputs, seed) for seed in range(_NUDGES)]
    others = [reference.infer(nudged[0]), *filter(None, [_in_double(reference, one) for one in (feed, *nudged)])]
    found = {}
    for name, array in expected.items():
        with np.errstate(all="ignore"):
            moved = [
                np.abs(other[name].astype(np.float64) - array) for other in others if other[name].shape == array.shape
            ]
        found[name] = np.max([np.where(np.isnan(one), np.inf, one) for one in moved] or [np.zeros(array.shape)], axis=0)
    return found


def _in_double(reference: "Runner", feed: Feed) -> "dict[str, np.ndarray] | None":
    """Return the outputs of the model in float64; None where it is no module, or mixes types."""
    from optkit.artifact import Format

    if reference.artifact.format is not Format.PYTORCH:
        return None
    import copy

    import torch

    from optkit.pytorch.forward import flatten, forward_call
    from optkit.pytorch.source import load_module

    try:
        module = copy.deepcopy(load_module(reference.artifact)).double()
        tensors = {
            name: torch.from_numpy(array.astype("float64") if array.dtype.kind == "f" else array)
            for name, array in feed.items()
        }
        args, kwargs = forward_call(module, reference.artifact.inputs).arguments(tensors)
        with torch.inference_mode():
            found = [tensor.numpy() for _, tensor in flatten(module(*args, **kwargs))]
    except Exception:  # a model that casts by itself cannot run in float64; torch and the user's code raise many types
        return None
    return {spec.name: array for spec, array in zip(reference.artifact.outputs, found, strict=False)}


def _nudged(feed: Feed, inputs: Sequence[TensorSpec], seed: int = 0) -> "dict[str, np.ndarray]":
    """Return the feed with every float changed by up to two units of its last digit."""
    import numpy as np

    rng = np.random.default_rng(seed)
    found = dict(feed)
    for spec in inputs:
        if _reaches(spec):
            array = feed[spec.name]
            step = 2 * np.finfo(array.dtype).eps
            found[spec.name] = (array * (1 + step * rng.choice([-1, 1], array.shape))).astype(array.dtype)
    return found


def _wrong(
    expected: "np.ndarray", got: "np.ndarray | None", tolerance: Tolerance, doubt: "np.ndarray | None"
) -> "np.ndarray | None":
    """Return a mask of the wrong elements; None where none is. Only finite floats of the reference are compared."""
    import numpy as np

    if got is None or got.shape != expected.shape or expected.dtype.kind != "f" or not expected.size:
        return None
    r, c = expected.astype(np.float64), got.astype(np.float64)
    rows = r.reshape(len(r), -1) if r.ndim > 1 else r.reshape(1, -1)
    with np.errstate(all="ignore"):
        finite = np.isfinite(rows)
        allowed = (tolerance.atol or 0.0) + (tolerance.rtol or 0.0) * np.abs(rows)
        if doubt is not None:
            moved = doubt.reshape(rows.shape)
            usual = np.median(np.where(finite, moved, 0), axis=1, keepdims=True)
            allowed = allowed + _NOISE * np.maximum(moved, usual)
        wrong = finite & ~(np.abs(c.reshape(rows.shape) - rows) <= allowed)
    return wrong.reshape(r.shape) if wrong.any() else None


def _text(expected: "np.ndarray", got: "np.ndarray", wrong: "np.ndarray", row_kinds: Sequence[Kind]) -> str:
    """Return the first wrong element in words, with the kind of values that it is of."""
    import numpy as np

    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    kind = row_kinds[at[0] % len(row_kinds)] if len(row_kinds) > 1 and at else row_kinds[0]
    return (
        f"on far-reaching values, {kind.text}: {int(wrong.sum())} of {wrong.size} elements are wrong, "
        f"such as {got[at]:.6g} for {expected[at]:.6g}"
    )


def _right_up_to(
    reference: "Runner", candidate: "Runner", samples: Samples, sizes: Sizes, output: str, tolerance: Tolerance
) -> str:
    """Return the largest absolute input up to which the output is right, as a sentence; empty where it is right for scaled values."""
    import numpy as np

    right: float | None = None
    for exponent in range(21):
        feed = far_feed(samples, sizes, [Kind("", _times(2.0 ** (exponent / 2)))])
        try:
            expected, got = reference.infer(feed), candidate.infer(feed)
            doubt = _doubt(reference, feed, samples.inputs, expected)
        except RunnerError:
            break
        if _wrong(expected[output], got.get(output), tolerance, doubt[output]) is not None:
            return f". It is right for inputs of up to {right:.2g} in absolute value" if right else ""
        right = max(float(np.abs(feed[spec.name]).max()) for spec in samples.inputs if _reaches(spec))
    return ""


def _failed(name: str, sizes: Sizes, failure: str) -> OutputParity:
    return OutputParity(output=name, sizes=dict(sizes), max_abs=None, max_rel=None, cosine=None, failure=failure)
