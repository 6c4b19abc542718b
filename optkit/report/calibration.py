"""The findings of the calibration doctor as tables for a terminal."""

from rich.table import Table

from optkit.artifact import Passport
from optkit.artifact.calibration import Diagnosis, Moments
from optkit.messages import count
from optkit.report.table import plain_table

_MOST_ROWS = 10


def calibration_tables(passport: Passport) -> list[Table]:
    """Return the findings on the calibration data of an artifact; an empty list if it was not calibrated."""
    calibration = passport.artifact.calibration
    if calibration is None:
        return []
    found = calibration.diagnosis
    tables = [_growth(found), _inputs(passport, found), _samples(found), _tails(found)]
    return [table for table in tables if table.row_count]


def _growth(found: Diagnosis) -> Table:
    table = plain_table("growth of the ranges", "samples", "share of the final width")
    for point in found.growth:
        table.add_row(str(point.samples), f"{point.share:.1%}")
    return table


def _inputs(passport: Passport, found: Diagnosis) -> Table:
    evaluated = {m.input: m for m in passport.accuracy.inputs} if passport.accuracy else {}
    shifted = {shift.calibration.input for shift in passport.shifts}
    table = plain_table("inputs, mean ± standard deviation", "input", "calibration", "evaluation", "verdict")
    for mine in found.moments:
        other = evaluated.get(mine.input)
        verdict = "differs" if mine.input in shifted else "similar" if other else "no evaluation data"
        table.add_row(mine.input, _moments(mine), _moments(other) if other else "", verdict)
    return table


def _moments(moments: Moments) -> str:
    return f"{moments.mean:.4g} ± {moments.deviation:.4g}"


def _samples(found: Diagnosis) -> Table:
    table = plain_table("unusual samples", "sample", "reason")
    for outlier in found.outliers[:_MOST_ROWS]:
        reason = (
            f"stretches {count(outlier.tensors, 'range')}, {outlier.worst} to {outlier.stretch:.1f} times its width"
        )
        table.add_row(str(outlier.sample), reason)
    for first, *others in found.duplicates[:_MOST_ROWS]:
        table.add_row(", ".join(map(str, others)), f"equal to sample {first}")
    for name, samples in found.constants.items():
        table.add_row(", ".join(map(str, samples[:_MOST_ROWS])), f"input {name} is constant")
    return table


def _tails(found: Diagnosis) -> Table:
    table = plain_table("tensors with long tails", "tensor", "99.9 % of values in", "clipped")
    for tail in (found.long_tails or ())[:_MOST_ROWS]:
        table.add_row(tail.tensor, f"{tail.inner_share:.1%} of the range", f"{tail.clipped_share:.2%}")
    return table
