"""`optkit verify`: every file hashed again, and what a record says of a file read from the file itself."""

from pathlib import Path
from typing import ClassVar

from optkit.artifact import passport_path
from optkit.benchmark.bench_record import BenchRecord
from optkit.errors import ArtifactError
from optkit.hashing import sha256_of
from optkit.pipeline.bench import BENCH_FILE
from optkit.pipeline.packages import FOLDERS, PACKAGES_FILE, KeptPackage, KeptPackages, content_sha256
from optkit.pipeline.records import RunRecord, StepResult
from optkit.pipeline.run import RUN_FILE
from optkit.pipeline.verify_artifact import Difference, Findings, verify_artifact
from optkit.pytorch.source import is_onnx
from optkit.record import Document
from optkit.serving.torchserve.mar import archive_faults
from optkit.serving.triton.package_record import FILE, TritonRecord
from optkit.untrusted.paths import exists, file_fault, is_file, is_folder


class Verification(Document):
    """What was checked, and every difference that was found."""

    schema_id: ClassVar[str] = "optkit/verification/1"

    path: str
    checked: tuple[str, ...]  # the files that were hashed again
    differences: tuple[Difference, ...]
    unchecked: tuple[str, ...]  # what could not be read again, and why

    @property
    def failures(self) -> tuple[str, ...]:
        """The differences as sentences."""
        return tuple(f"{found.file}: {found.what}" for found in self.differences)


def verify(path: Path) -> Verification:
    """Check a path against the records that optkit wrote with it.

    Args:
        path: a model file with a passport, the folder of a run, a Triton repository or a model in it, an archive for TorchServe, or a
            model store.

    Raises:
        ArtifactError: it is none of these.
    """
    path = path.absolute()
    found = Findings(path if is_folder(path) else path.parent)
    if is_file(path):
        _archive(found, path) if path.suffix == ".mar" else verify_artifact(found, path)
    elif exists(path / RUN_FILE):
        _run(found, path)
    elif models := [folder for folder in (path, *_folders(path)) if exists(folder / FILE)]:
        for model in models:
            _triton_model(found, model)
    elif archives := sorted(path.glob("*.mar")):
        for archive in archives:
            _archive(found, archive)
    else:
        raise ArtifactError(
            f"{path}: nothing here is a record of optkit; expected a model file with a passport, the folder of a run, a Triton "
            "repository, an archive for TorchServe, or a model store that optkit wrote"
        )
    return Verification(
        path=str(path),
        checked=tuple(dict.fromkeys(found.checked)),
        differences=tuple(found.differences),
        unchecked=tuple(dict.fromkeys(found.unchecked)),
    )


def _folders(path: Path) -> list[Path]:
    return sorted(folder for folder in path.iterdir() if is_folder(folder)) if is_folder(path) else []


def _run(found: Findings, folder: Path) -> None:
    record = found.read(RunRecord, folder / RUN_FILE)
    if record is None:
        return
    steps = {step.name: step for step in (record.source, *record.steps) if step.made}
    for step in steps.values():
        _step(found, folder, step, steps.get(step.parent or ""))
    if record.bench and (bench := found.read(BenchRecord, folder / BENCH_FILE)):
        for file in bench.files:
            if file.artifact in steps and steps[file.artifact].sha256 != file.sha256:
                found.differs(folder / BENCH_FILE, f"measured another {file.artifact}: SHA-256 {file.sha256}")
    if exists(folder / PACKAGES_FILE) and (packages := found.read(KeptPackages, folder / PACKAGES_FILE)):
        for kept in packages.packages:
            _package(found, folder, kept)


def _package(found: Findings, folder: Path, kept: KeptPackage) -> None:
    path = folder / FOLDERS[kept.packaged.target] / kept.packaged.path.name
    try:
        if content_sha256(kept.packaged.model_copy(update={"path": path})) != kept.sha256:
            found.differs(path, f"its files are not those that the run packaged; {PACKAGES_FILE} has another hash")
    except ArtifactError as e:
        found.differs(path, str(e))
    if path.suffix == ".mar" and is_file(path):
        _archive(found, path)
    elif exists(path / FILE):
        _triton_model(found, path)


def _step(found: Findings, folder: Path, step: StepResult, parent: StepResult | None) -> None:
    path = folder / (step.file or "")
    if not exists(passport_path(path)):
        found.differs(passport_path(path), "is missing")
        return
    artifact = verify_artifact(found, path)
    if artifact is None or step.artifact is None:
        return
    if artifact.sha256 != step.sha256:
        found.differs(path, f"its passport has the SHA-256 {artifact.sha256}; {RUN_FILE} has {step.sha256}")
    if parent and not (parent.stage == "source" and is_onnx(str(parent.file))):
        made_of = artifact.parent_sha256
        if made_of is not None and made_of != parent.sha256:
            found.differs(
                path, f"was made of a {parent.name} with the SHA-256 {made_of}; the run's has {parent.sha256}"
            )


def _triton_model(found: Findings, folder: Path) -> None:
    record = found.read(TritonRecord, folder / FILE)
    if record is None:
        return
    for name, recorded in record.files.items():
        if fault := file_fault(folder, name):
            found.differs(folder / name, fault)
            continue
        found.checked.append(found.name(folder / name))
        if sha256_of(folder / name) != recorded:
            what = "was edited after optkit wrote it" if name == "config.pbtxt" else "is not the file that optkit wrote"
            found.differs(folder / name, what)


def _archive(found: Findings, path: Path) -> None:
    faults = archive_faults(path)
    if faults is None:
        found.unchecked.append(f"{found.name(path)}: optkit did not make it, so nothing says what it should be")
        return
    found.checked.append(found.name(path))
    for what in faults:
        found.differs(path, what)
