"""What proves an artifact: parity with its reference, batch independence, accuracy."""

from optkit.check.accuracy import evaluate
from optkit.check.batching import check_batch_independence, compare_batches
from optkit.check.parity import TOLERANCES, check_parity, compare_outputs
from optkit.check.proof import Prover, Requirements

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
