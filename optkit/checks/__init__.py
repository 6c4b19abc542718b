"""The checks of an artifact: parity with its reference, batch independence, accuracy."""

from optkit.checks.accuracy import evaluate
from optkit.checks.batching import check_batch_independence, compare_batches
from optkit.checks.parity import TOLERANCES, check_parity, compare_outputs
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
]
