"""Parity: a candidate gives the outputs of the reference at every corner of the declared dimensions."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from optkit.artifact import Precision
from optkit.artifact.findings import OutputParity, Parity, Tolerance
from optkit.artifact.limits import ROUNDING, at_least
from optkit.artifact.tensors import DimRange, corners
from optkit.checks.far_values import far_failures
from optkit.checks.faulty_operator import faulty_operator
from optkit.data import Samples, random_feed
from optkit.data.random_values import is_mask
from optkit.errors import RunnerError
from optkit.progress import track
from optkit.runners import Runner

if TYPE_CHECKING:
    import numpy as np

# FP32: a deep network whose additions run in another order. FP16: 10 bits of mantissa. BF16: 7 bits. INT8: 8 bits for a whole tensor, so single
# elements may be far off, and only the whole output has limits. The cosine compares directions, but shows little where all values
# share a large offset. The SQNR compares the noise with the variance of the output: it shows an offset and a wrong scale. For INT8
# the accuracy decides.
TOLERANCES: Mapping[Precision, Tolerance] = {
    Precision.FP32: Tolerance(atol=1e-4, rtol=1e-3, min_cosine=0.9999),
    Precision.FP16: Tolerance(atol=1e-2, rtol=1e-2, min_cosine=0.999),
    Precision.BF16: Tolerance(atol=8e-2, rtol=8e-2, min_cosine=0.99),
    Precision.INT8: Tolerance(min_cosine=0.98, min_sqnr_db=10),
}


def check_parity(
    reference: Runner,
    candidate: Runner,
    samples: Samples,
    dims: Mapping[str, DimRange],
    tolerance: Tolerance | None = None,
) -> Parity:
    """Run both on the same feeds at min, opt, max and an odd size of every dimension, and compare every output.

    Args:
        reference: an open runner.
        candidate: an open runner of the artifact to check.
        samples: the source of the values.
        dims: the ranges; their corners are visited.
        tolerance: None uses the tolerance of the candidate's precision.

    Raises:
        RunnerError: the reference fails. A candidate that fails has no parity; it is no error.
    """
    tolerance = tolerance or TOLERANCES[candidate.artifact.compute_precision]
    found: list[OutputParity] = []
    named = False  # whether the faulty operator was looked for; once is enough
    compared: set[str] = set()  # outputs with a finite element
    sizes_and_seeds = [(sizes, 0) for sizes in corners(dims)]
    # Other values at the smallest sizes: one set of values may not reach a branch that the exporter made constant.
    sizes_and_seeds.append(({name: r.min for name, r in dims.items()}, 1))
    for sizes, seed in track(sizes_and_seeds, "parity", len(sizes_and_seeds)):
        feed = samples.at(sizes, seed)
        expected = reference.infer(feed)
        compared |= {name for name, array in expected.items() if _any_finite(array)}
        if samples.real is None and (unusable := nan_faults(expected, sizes)):
            found += unusable
            continue
        try:
            got = candidate.infer(feed)
        except RunnerError as e:
            found += [_failed(name, sizes, str(e)) for name in expected]
            continue
        compared_here = compare_outputs(expected, got, sizes, tolerance)
        if not named and any(one.failure and one.max_abs is not None for one in compared_here):
            named = True
            compared_here = _with_operator(compared_here, faulty_operator(reference.artifact, candidate.artifact, feed))
        found += compared_here
    found += _wide_integers(reference, candidate, samples, dims, tolerance)
    if candidate.artifact.compute_precision is Precision.FP16:
        found += _masked_rows(reference, candidate, samples, dims, tolerance)
    never = {one.output: one.sizes for one in found if one.failure is None and one.output not in compared}
    found += [_unusable(name, sizes, "only NaN and infinities") for name, sizes in never.items()]
    beyond = None
    if candidate.artifact.compute_precision is Precision.FP32 and all(one.failure is None for one in found):
        far = far_failures(reference, candidate, samples, dims, _at_least(tolerance, TOLERANCES[Precision.FP32]))
        if samples.real is None:
            found += far
        elif far:
            beyond = f"output {far[0].output!r} {far[0].failure}"
    return Parity(
        reference=reference.artifact.path.name,
        candidate=candidate.artifact.path.name,
        tolerance=tolerance,
        values=samples.origin,
        outputs=tuple(found),
        beyond=beyond,
    )


def _with_operator(found: list[OutputParity], operator: str | None) -> list[OutputParity]:
    """Return the results with the faulty operator in the first failure."""
    first = next((one for one in found if one.failure), None)
    if first is None or operator is None:
        return found
    text = f"{first.failure}. The operator is {operator}"
    return [one.model_copy(update={"failure": text}) if one is first else one for one in found]


def _any_finite(array: "np.ndarray") -> bool:
    import numpy as np

    return bool(array.dtype.kind != "f" or np.isfinite(array).any() or not array.size)


def nan_faults(expected: "Mapping[str, np.ndarray]", sizes: Mapping[str, int]) -> list[OutputParity]:
    """Return a failure for each output of the reference with NaN: on random values it says nothing of the model."""
    import numpy as np

    return [
        _unusable(name, sizes, f"NaN in {int(np.isnan(array).sum())} of {array.size} elements")
        for name, array in expected.items()
        if array.dtype.kind == "f" and np.isnan(array).any()
    ]


def _unusable(name: str, sizes: Mapping[str, int], found: str) -> OutputParity:
    return _failed(
        name, sizes, f"the samples are unusable: on them the model itself gives {found}. Give real samples with --data"
    ).model_copy(update={"unusable": True})


def _at_least(tolerance: Tolerance, usual: Tolerance) -> Tolerance:
    """Return the larger limits of two: far-reaching values are not held to a limit that was set for normal ones."""
    atol, rtol = (max(getattr(tolerance, n) or 0.0, getattr(usual, n) or 0.0) for n in ("atol", "rtol"))
    return Tolerance(atol=atol, rtol=rtol)


def _wide_integers(
    reference: Runner, candidate: Runner, samples: Samples, dims: Mapping[str, DimRange], tolerance: Tolerance
) -> list[OutputParity]:
    """Compare on negative and larger integers too, where the reference accepts them: 0 and 1 hide wrong arithmetic.

    A reference with an embedding refuses ids outside its table; then nothing is compared.
    """
    whole = any(not spec.dtype.is_float and "mask" not in spec.name for spec in samples.inputs)
    if samples.real is not None or not whole:
        return []
    sizes = {name: r.opt for name, r in dims.items()}
    feed = random_feed(samples.inputs, sizes, wide=True, values=samples.random)
    try:
        expected = reference.infer(feed)
    except RunnerError:
        return []
    try:
        return compare_outputs(expected, candidate.infer(feed), sizes, tolerance)
    except RunnerError as e:
        return [_failed(name, sizes, str(e)) for name in expected]


def _masked_rows(
    reference: Runner, candidate: Runner, samples: Samples, dims: Mapping[str, DimRange], tolerance: Tolerance
) -> list[OutputParity]:
    """Compare on fully masked rows where the reference gives finite numbers there: the masks' large constants were cut to FP16."""
    import numpy as np

    sizes = {name: r.opt for name, r in dims.items()}
    found: list[OutputParity] = []
    for value in (False, True):  # whatever True means
        feed, masks = samples.at(sizes), [s.name for s in samples.inputs if is_mask(s)]
        if not masks:
            return []
        feed |= {name: np.full_like(feed[name], value) for name in masks}
        try:
            expected = reference.infer(feed)
        except RunnerError:
            continue
        if not all(np.isfinite(array).all() for array in expected.values()):
            continue
        try:
            compared = compare_outputs(expected, candidate.infer(feed), sizes, tolerance)
        except RunnerError as e:
            compared = [_failed(name, sizes, str(e)) for name in expected]
        found += [
            one.model_copy(update={"failure": f"with every mask {value}: {one.failure}"})
            for one in compared
            if one.failure
        ]
    return found


def compare_outputs(
    reference: "Mapping[str, np.ndarray]",
    candidate: "Mapping[str, np.ndarray]",
    sizes: Mapping[str, int],
    tolerance: Tolerance,
) -> list[OutputParity]:
    """Compare the outputs of one feed by name; a missing or an extra one is a failure."""
    found = []
    for name in sorted(set(reference) | set(candidate)):
        if name not in candidate:
            found.append(_failed(name, sizes, "the candidate does not have it"))
        elif name not in reference:
            found.append(_failed(name, sizes, "the reference does not have it"))
        else:
            found.append(_compare(name, sizes, reference[name], candidate[name], tolerance))
    return found


def _compare(
    name: str, sizes: Mapping[str, int], reference: "np.ndarray", candidate: "np.ndarray", tolerance: Tolerance
) -> OutputParity:
    import numpy as np

    if reference.shape != candidate.shape:
        return _failed(name, sizes, f"has shape {list(candidate.shape)}; the reference has {list(reference.shape)}")
    if reference.dtype != candidate.dtype:
        return _failed(name, sizes, f"is {candidate.dtype}; the reference is {reference.dtype}")
    finite = np.isfinite(reference)
    if failure := _misplaced(reference, candidate, finite):
        return _failed(name, sizes, failure)
    r, c = reference[finite].astype(np.float64), candidate[finite].astype(np.float64)
    difference = np.abs(c - r)
    max_abs = float(difference.max(initial=0.0))
    max_rel = float((difference / np.maximum(np.abs(r), 1e-12)).max(initial=0.0))
    cosine, sqnr = _cosine(r, c), sqnr_db(r, c)
    failure = _outside(r, difference, tolerance)
    if failure is None and tolerance.min_cosine is not None and not at_least(cosine, tolerance.min_cosine):
        failure = f"cosine {cosine:.5f} is below {tolerance.min_cosine:g}"
    if failure is None and tolerance.min_sqnr_db is not None and max_abs:
        found = (
            -math.inf if sqnr is None else sqnr
        )  # an output of zeros that became another one has no ratio, and is wrong
        if not at_least(found, tolerance.min_sqnr_db):
            failure = f"SQNR {found:.1f} dB is below {tolerance.min_sqnr_db:g}"
    return OutputParity(
        output=name, sizes=dict(sizes), max_abs=max_abs, max_rel=max_rel, cosine=cosine, sqnr_db=sqnr, failure=failure
    )


def _misplaced(reference: "np.ndarray", candidate: "np.ndarray", finite: "np.ndarray") -> str | None:
    """Return the failure where NaN and infinities do not stand at the same places in both; banned actions are -inf in both."""
    import numpy as np

    if finite.all() and np.isfinite(candidate).all():
        return None
    bad = int((finite & ~np.isfinite(candidate)).sum())
    if bad:
        return f"{bad} of {candidate.size} elements are NaN or infinite"
    same = np.array_equal(reference[~finite], candidate[~finite], equal_nan=True)
    if same:
        return None
    r, c = reference[~finite], candidate[~finite]
    at = int(np.argmax(~((r == c) | (np.isnan(r) & np.isnan(c)))))
    return f"{r.size} of {candidate.size} elements of the reference are NaN or infinite; one of them is {c[at]:g} for {r[at]:g}"


def _outside(reference: "np.ndarray", difference: "np.ndarray", tolerance: Tolerance) -> str | None:
    """Return the failure by atol and rtol, where one of them is set."""
    import numpy as np

    if tolerance.atol is None and tolerance.rtol is None:
        return None
    allowed = (tolerance.atol or 0.0) + (tolerance.rtol or 0.0) * np.abs(reference)
    # A difference that equals a typed limit within rounding is allowed, as by `at_most`.
    outside = int((~(difference <= allowed + ROUNDING * np.maximum(allowed, np.abs(reference)))).sum())
    if not outside:
        return None
    relative = (difference / np.maximum(np.abs(reference), 1e-12)).max()
    return f"{outside} of {reference.size} elements are outside {tolerance}: max abs {difference.max():.3g}, max rel {relative:.3g}"


def sqnr_db(reference: "np.ndarray", candidate: "np.ndarray") -> float | None:
    """Return the variance of the reference over the mean square of the difference, in decibels: the signal to quantization noise ratio.

    The mean of the reference is not part of the signal: a large constant would hide any error. A constant reference (one element) is
    used as it is. None where there is no signal, or no difference.
    """
    import numpy as np

    r, c = reference.astype(np.float64).ravel(), candidate.astype(np.float64).ravel()
    varies = r.size > 0 and float(np.ptp(r)) > 0
    signal = float(np.square(r - r.mean()).sum() if varies else np.square(r).sum())
    noise = float(np.square(c - r).sum())
    return 10 * math.log10(signal / noise) if signal and noise else None


def _cosine(a: "np.ndarray", b: "np.ndarray") -> float:
    """Return the cosine of two vectors: 1 for two zero vectors, 0 for one."""
    import numpy as np

    norm_a, norm_b = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    if norm_a == 0 or norm_b == 0:
        return 1.0 if norm_a == norm_b else 0.0
    return float(np.clip(np.dot(a / norm_a, b / norm_b), -1.0, 1.0))


def _failed(name: str, sizes: Mapping[str, int], failure: str) -> OutputParity:
    return OutputParity(output=name, sizes=dict(sizes), max_abs=None, max_rel=None, cosine=None, failure=failure)
