"""The checks of an artifact.

parity          values and shapes against a reference, at every corner of the dynamic dimensions
far_values      values that reach far: what saturates, overflows or cancels
faulty_operator the operator that an exporter wrote wrongly, with the line of the model
batching        batch independence: f([a, b]) = [f(a), f(b)]
accuracy        the user's own metric
proof           all of these for one artifact
"""

from optkit.checks.accuracy import evaluate
from optkit.checks.batching import check_batch_independence, compare_batches
from optkit.checks.parity import TOLERANCES, check_parity, compare_outputs, nan_faults
from optkit.checks.proof import Prover, Requirements

__all__ = [
    "TOLERANCES",
    "Prover",
    "Requirements",
    "check_batch_independence",
    "check_parity",
    "compare_batches",
    "compare_outputs",
    "evaluate",
    "nan_faults",
]
