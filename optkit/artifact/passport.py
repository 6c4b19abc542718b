"""An artifact: a model file, and the passport beside it with its facts and its results."""

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from optkit.artifact.calibration import CalibrationResult, Shift
from optkit.artifact.compiled import CompiledFacts
from optkit.artifact.engine import EngineFacts, profile_dims
from optkit.artifact.findings import Accuracy, BatchIndependence, Measurement, Parity, Quantization
from optkit.artifact.tensors import DimRange, TensorSpec
from optkit.deps import built_with
from optkit.errors import ArtifactError
from optkit.hashing import hash_of, sha256_of
from optkit.record import Document, Record
from optkit.untrusted.names import TensorName
from optkit.untrusted.paths import FileName, file_in, is_file

PASSPORT_SUFFIX = ".passport.json"


class Format(StrEnum):
    """The format of a model file."""

    PYTORCH = "pytorch"  # a ModelSource: the origin of an nn.Module
    TORCHSCRIPT = "torchscript"
    EXPORTED_PROGRAM = "exported-program"
    ONNX = "onnx"
    TENSORRT = "tensorrt"  # an engine of TensorRT or TensorRT-RTX
    AOTI = "aoti"  # a package of AOTInductor: native code


class Precision(StrEnum):
    """The lowest precision that a model file computes in, by its graph."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"


class RandomValues(Record):
    """The random values that a model accepts, where there is no real data; see `data.random_values`."""

    masks: Literal["padded", "reversed", "false", "true"] = (
        "padded"  # padded on the right; a constant; or the other way round
    )
    integers: Literal["from 0", "from 1"] = "from 0"
    floats: Literal["normal", "positive"] = "normal"

    def __str__(self) -> str:
        usual = RandomValues()
        texts = {
            "masks": f"masks {self.masks}",
            "integers": f"integers {self.integers}",
            "floats": f"{self.floats} floats",
        }
        return ", ".join(text for key, text in texts.items() if getattr(self, key) != getattr(usual, key))


class Artifact(Record):
    """A model file with its contract; `path` is absolute.

    `files` are the other files that `path` needs (external data), relative to its folder. `notes` are for people and describe how it
    was made; `quantization` has the numbers behind them.
    """

    path: Path
    format: Format
    precision: Precision
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    dims: dict[TensorName, DimRange]
    sha256: str
    parent_sha256: str | None = None
    files: tuple[FileName, ...] = ()
    built_with: dict[str, str] = Field(default_factory=built_with)
    notes: tuple[str, ...] = ()
    engine: EngineFacts | None = None  # of a TensorRT engine
    compiled: CompiledFacts | None = None  # of a package of AOTInductor
    calibration: CalibrationResult | None = None  # the ranges that it was quantized with
    quantization: Quantization | None = None  # the types that were tried, and the measurements
    random: RandomValues | None = None  # None: the usual ones
    torch_engine: str | None = None  # PyTorch's quantized engine that runs it; for INT8 TorchScript alone

    @property
    def all_files(self) -> tuple[Path, ...]:
        """Every file of the artifact, the model itself first.

        Raises:
            ArtifactError: a file beside the model is missing, is not a regular file, or is behind a link.
        """
        return (self.path, *files_beside(self.path, self.files))

    @property
    def size_bytes(self) -> int:
        """The size of all its files."""
        return sum(file.stat().st_size for file in self.all_files)

    @property
    def compute_precision(self) -> Precision:
        """The precision that decides its tolerances: FP16 for an engine with TF32, which has the mantissa of FP16."""
        return Precision.FP16 if self.engine and self.engine.settings.get("tf32") else self.precision

    @property
    def identity(self) -> str:
        """The hash of its content and its contract. Every artifact and result that is derived from it depends on this hash."""
        return hash_of(
            {
                "content": self.sha256,
                "inputs": [str(spec) for spec in self.inputs],
                "outputs": [str(spec) for spec in self.outputs],
                "dims": {name: r.model_dump() for name, r in self.dims.items()},
                **({"random": self.random.model_dump()} if self.random else {}),
            }
        )

    @property
    def ranges(self) -> tuple[dict[str, DimRange], ...]:
        """The ranges whose corners are checked: those of every profile of an engine, else the declared ones."""
        profiles = self.engine.profiles if self.engine else ()
        return tuple(profile_dims(self.inputs, profile) for profile in profiles) or (self.dims,)

    def is_intact(self) -> bool:
        """Whether every file exists and has the same content as when the artifact was made."""
        try:
            return sha256_of(*self.all_files) == self.sha256
        except ArtifactError:
            return False


class Passport(Document):
    """The record beside an artifact: its facts, how it was made, and its results."""

    schema_id: ClassVar[str] = "optkit/passport/4"
    sealed: ClassVar[bool] = True

    artifact: Artifact
    stage: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    data_sha256: str | None = None
    key: str | None = None  # hash of everything that it was made from; None for an artifact made outside a recipe
    reads: tuple[
        dict[str, str], ...
    ] = ()  # what the user's code read while it was made, of each function: name -> state
    proof_key: str | None = None  # hash of everything that the results below depend on
    proof_reads: tuple[dict[str, str], ...] = ()  # what the user's code read while it was proven
    unproven: str | None = None  # why it could not be run here
    seconds: float | None = None  # the time that it took to make
    parity: Parity | None = None
    batch_independence: BatchIndependence | None = None
    accuracy: Accuracy | None = None
    shifts: tuple[Shift, ...] = ()  # inputs whose calibration data differs from the evaluation data
    failures: tuple[str, ...] = ()  # broken limits of a single command; its file was then not written
    measurements: tuple[Measurement, ...] = ()  # without the single times, which are in the run's record

    @property
    def passed(self) -> bool:
        """Whether it is within every limit."""
        return not self.failures

    def save(self) -> Path:
        """Write the passport beside its artifact. Its path is relative, so that the folder can be moved.

        Raises:
            OutputError: the folder cannot be written.
        """
        path = passport_path(self.artifact.path)
        relative = self.artifact.model_copy(update={"path": Path(self.artifact.path.name)})
        self.model_copy(update={"artifact": relative}).write(path)
        return path


def files_beside(path: Path, names: Iterable[str]) -> tuple[Path, ...]:
    """Return the other files of a model, by their names relative to its folder.

    Raises:
        ArtifactError: a name leads out of that folder, or to anything but a regular file.
    """
    advice = "Make the artifact again, or copy it with every file that belongs to it."
    return tuple(file_in(path.parent, name, f"{path}: its file", advice) for name in names)


def passport_path(artifact_path: Path) -> Path:
    """Return the path of a file's passport."""
    return artifact_path.with_name(artifact_path.name + PASSPORT_SUFFIX)


def read_passport(artifact_path: Path, *, hashed: bool = True) -> Passport | None:
    """Read the passport beside a file; None when there is none. Without `hashed` the file is not hashed again.

    Raises:
        ArtifactError: the passport cannot be read, names a file outside the folder, or the content of the file has changed.
    """
    path = passport_path(artifact_path)
    if not is_file(path):
        return None
    passport = Passport.read(path)
    artifact = passport.artifact.model_copy(update={"path": artifact_path.absolute()})
    if hashed and sha256_of(*artifact.all_files) != artifact.sha256:
        raise ArtifactError(
            f"{artifact_path}: its SHA-256 differs from {path.name}: the file was changed. "
            f"Make the artifact again, or delete {path.name} if the change was intended."
        )
    return passport.model_copy(update={"artifact": artifact})
