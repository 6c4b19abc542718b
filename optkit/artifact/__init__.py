"""An artifact and what is known about it, as records: no computation, no heavy library.

passport        `Artifact`, a model file with its contract; `Passport`, the JSON file beside it
tensors         `TensorSpec`, `DimRange`, feeds: the contract of the inputs, and its grammar
findings        parity, batch independence, accuracy, measurements
calibration     the ranges of a calibration, and the diagnosis of its data
gates           the limits of a recipe or of one command
compiled        what code compiled ahead of time is, and where it loads
limits          the one rule by which a figure is compared with a limit
engine          what a TensorRT engine is, and where it loads
environment     library versions, optkit's own code, the processor: in every key of a reused result
platforms       GPUs and Triton releases; their sources are in platforms.json
"""

from optkit.artifact.passport import (
    PASSPORT_SUFFIX,
    Artifact,
    Format,
    Passport,
    Precision,
    RandomValues,
    files_beside,
    passport_path,
    read_passport,
)

__all__ = [
    "PASSPORT_SUFFIX",
    "Artifact",
    "Format",
    "Passport",
    "Precision",
    "RandomValues",
    "files_beside",
    "passport_path",
    "read_passport",
]
