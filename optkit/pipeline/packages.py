"""The packages at the end of a run. A package is made again only if its artifact or settings have changed."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from optkit import user_code
from optkit.artifact import Passport, environment
from optkit.artifact.tensors import DimRange, TensorSpec
from optkit.choose.winner import Winner
from optkit.data import Samples
from optkit.errors import ArtifactError, OptkitError, StageError, raise_if_interrupted
from optkit.hashing import hash_of, sha256_of
from optkit.pipeline.plan import Plan
from optkit.pipeline.records import StepResult
from optkit.record import Document, Record
from optkit.serving import AnyServing, ArtifactServing, Packaged, TritonPythonServing, package_function
from optkit.serving.settings import FASTEST
from optkit.serving.targets import package
from optkit.serving.torchserve.golden import golden_files
from optkit.system.supervisor import step
from optkit.untrusted.paths import exists, is_file, is_folder

logger = logging.getLogger(__name__)

PACKAGES_FILE = "packages.json"
_PACKAGE_LIBRARIES = ("tritonclient", "protobuf", "pyyaml")  # that write configurations
FOLDERS = {"triton": "model_repository", "triton-python": "model_repository", "torchserve": "model_store"}


class KeptPackage(Record):
    """A package, the hash of its inputs (`key`) and the hash of its files."""

    key: str
    reads: tuple[dict[str, str], ...] = ()  # what the user's code read while it was made
    sha256: str
    packaged: Packaged


class KeptPackages(Document):
    """The packages of the last run; `packages.json`."""

    schema_id: ClassVar[str] = "optkit/packages/2"
    sealed: ClassVar[bool] = True

    packages: tuple[KeptPackage, ...]


def package_all(
    plan: Plan,
    results: Mapping[str, StepResult],
    winner: Winner | None,
    samples: Samples,
) -> tuple[tuple[Packaged, ...], tuple[str, ...]]:
    """Write the package of every `serve` entry; return the packages, and the reasons why others were not written.

    An artifact that did not pass its gates is never packaged.
    """
    path = plan.out_dir / PACKAGES_FILE
    before = {kept.key: kept for kept in _kept(path)}
    done: list[KeptPackage] = []
    refusals: list[str] = []
    for i, serving in enumerate(plan.recipe.serve):
        where = f"serve.{i} ({serving.target})"
        try:
            with step(where):
                if isinstance(serving, TritonPythonServing):
                    what, kept = serving.function.rpartition("/")[2], _function_or_reuse(plan, serving, before)
                else:
                    what, passport = _passed(serving, results, winner)
                    kept = _package_or_reuse(plan, passport, serving, samples, before)
        except OptkitError as e:
            raise_if_interrupted(e)
            refusals.append(f"{where}: {e}")
            continue
        done.append(kept)
        how = "reused" if kept.key in before else f"packaged {what} as"
        logger.info("%s: %s %s", where, how, kept.packaged.path)
    KeptPackages(packages=tuple(done)).write(path)
    return tuple(kept.packaged for kept in done), tuple(refusals)


def _passed(serving: ArtifactServing, results: Mapping[str, StepResult], winner: Winner | None) -> tuple[str, Passport]:
    """Return the name and passport of the artifact to package.

    Raises:
        StageError: the artifact did not pass its gates.
    """
    name = serving.artifact if serving.artifact != FASTEST else winner.artifact if winner else None
    passport = results[name].passport if name and results[name].passed else None
    if name is None or passport is None:
        raise StageError(
            f"not packaged: {f'{name!r} did not pass its gates' if name else 'no artifact passed its gates'}"
        )
    return name, passport


def _package_or_reuse(
    plan: Plan, passport: Passport, serving: ArtifactServing, samples: Samples, before: dict[str, KeptPackage]
) -> KeptPackage:
    independence = passport.batch_independence
    made_of = {
        "artifact": passport.artifact.identity,
        "independent": independence.passed if independence else None,
        "samples": samples.real.sha256() if samples.real else None,
        "recipe": plan.recipe.name,
    }

    def make() -> Packaged:
        return package(
            passport,
            plan.out_dir / FOLDERS[serving.target],
            serving,
            name=plan.recipe.name,
            samples=samples,
            force=True,  # the folder belongs to the run
        )

    targets = (samples.real.target if samples.real else None,)
    return _kept_or_made(plan, serving, made_of, targets, before, make)


def _function_or_reuse(plan: Plan, serving: TritonPythonServing, before: dict[str, KeptPackage]) -> KeptPackage:
    dims = used_dims(serving.inputs, plan.recipe.dims)
    samples = Samples.of(serving.data, serving.inputs, dims)
    made_of = {
        "code": user_code.code_sha256(serving.function),
        "samples": samples.real.sha256() if samples.real else None,
        "dims": {name: allowed.model_dump() for name, allowed in dims.items()},
    }

    def make() -> Packaged:
        return package_function(serving, plan.out_dir / FOLDERS[serving.target], dims, samples, force=True)

    return _kept_or_made(plan, serving, made_of, (serving.function, serving.data), before, make)


def _kept_or_made(
    plan: Plan,
    serving: AnyServing,
    made_of: Mapping[str, object],
    targets: Sequence[str | None],
    before: dict[str, KeptPackage],
    make: Callable[[], Packaged],
) -> KeptPackage:
    """Return the earlier package if its inputs are the same and its files are intact, otherwise make it."""
    key = hash_of(
        {
            **made_of,
            "folder": str(plan.out_dir),  # the package's record contains this path
            "settings": serving.model_dump(mode="json"),
            "files": {file: sha256_of(Path(file)) for file in serving.files_read},
            "versions": environment.versions(*_PACKAGE_LIBRARIES, packages=True),
        }
    )
    folder = plan.out_dir / FOLDERS[serving.target]
    known = before.get(key)
    if (
        known
        and not user_code.changed(known.reads, targets)
        and known.packaged.path.parent == folder
        and _intact(known)
    ):
        return known
    before.pop(key, None)
    packaged = make()
    return KeptPackage(key=key, reads=user_code.reads(targets), sha256=content_sha256(packaged), packaged=packaged)


def used_dims(inputs: Sequence[TensorSpec], dims: Mapping[str, DimRange]) -> dict[str, DimRange]:
    """Return the ranges of the dimensions that the inputs use."""
    names = {dim for spec in inputs for dim in spec.shape}
    return {name: allowed for name, allowed in dims.items() if name in names}


def _kept(path: Path) -> tuple[KeptPackage, ...]:
    try:
        return KeptPackages.read(path).packages if is_file(path) else ()
    except ArtifactError as e:
        logger.warning("not reused: %s", e)
        return ()


def _files(packaged: Packaged) -> list[Path]:
    if is_folder(packaged.path):
        return sorted(p for p in packaged.path.rglob("*") if is_file(p))
    golden = [file for file in golden_files(packaged.path) if is_file(file)]
    return [packaged.path, packaged.path.with_name("config.properties"), *golden]


def content_sha256(packaged: Packaged) -> str:
    """Return the hash of the files of a package."""
    return sha256_of(*_files(packaged))


def _intact(kept: KeptPackage) -> bool:
    return (
        exists(kept.packaged.path)
        and (kept.packaged.client is None or is_file(kept.packaged.client / "client.py"))
        and all(is_file(p) for p in _files(kept.packaged))
        and content_sha256(kept.packaged) == kept.sha256
    )
