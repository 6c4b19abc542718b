"""A model repository on disk: its models with their configurations and versions."""

import dataclasses
import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING

from optkit.errors import ArtifactError
from optkit.serving.triton.lint.pbtxt import Edit, Tree
from optkit.serving.triton.lint.rules import Problem, problem
from optkit.untrusted.paths import exists, is_file, is_folder

if TYPE_CHECKING:
    from tritonclient.grpc import model_config_pb2 as schema

CONFIG = "config.pbtxt"
FILES = {
    "onnxruntime": "model.onnx",
    "pytorch": "model.pt",
    "tensorrt": "model.plan",
    "python": "model.py",
    "tensorflow": "model.savedmodel",
    "openvino": "model.xml",
}
PLATFORMS = {
    "onnxruntime_onnx": "onnxruntime",
    "pytorch_libtorch": "pytorch",
    "tensorrt_plan": "tensorrt",
    "tensorflow_savedmodel": "tensorflow",
    "tensorflow_graphdef": "tensorflow",
    "ensemble": "",
}


@dataclasses.dataclass(frozen=True)
class Model:
    """A folder of the repository. `config` is None if there is no configuration or it cannot be read."""

    folder: Path
    text: str | None = None
    config: "schema.ModelConfig | None" = None

    @property
    def name(self) -> str:
        """The name of the model on the server."""
        return self.folder.name

    @functools.cached_property
    def tree(self) -> Tree:
        """The positions of fields in the configuration."""
        return Tree(self.text or "")

    @functools.cached_property
    def versions(self) -> dict[int, Path]:
        """The version folders that the server sees."""
        found = (part for part in self.folder.iterdir() if is_folder(part) and re.fullmatch("[1-9][0-9]*", part.name))
        return {int(part.name): part for part in sorted(found)}

    @functools.cached_property
    def loaded(self) -> dict[int, Path]:
        """The versions that the version policy loads, with their folders."""
        kind = self.config.version_policy.WhichOneof("policy_choice") if self.config else None
        if self.config is None or kind == "all":
            return self.versions
        if kind == "specific":
            wanted = set(self.config.version_policy.specific.versions)
            return {version: path for version, path in self.versions.items() if version in wanted}
        newest = self.config.version_policy.latest.num_versions if kind == "latest" else 1
        kept = sorted(self.versions)[-newest:] if newest > 0 else []
        return {version: self.versions[version] for version in kept}

    @property
    def is_ensemble(self) -> bool:
        """Whether it is an ensemble."""
        config = self.config
        return config is not None and (config.platform == "ensemble" or config.HasField("ensemble_scheduling"))

    @property
    def backend(self) -> str:
        """The backend, from the configuration or from the model file. Empty if it is unknown or contradictory."""
        config = self.config
        if config is not None and config.backend and PLATFORMS.get(config.platform, config.backend) != config.backend:
            return ""
        if config is not None and config.backend:
            return str(config.backend)
        if config is not None and config.platform:
            return PLATFORMS.get(config.platform, "")
        given = config.default_model_filename if config is not None else ""
        names = {part.name for version in self.versions.values() for part in version.iterdir()}
        return next(
            (backend for backend, name in FILES.items() if name in names or Path(given).suffix == Path(name).suffix), ""
        )

    @property
    def filename(self) -> str | None:
        """The name of the model file in a version folder, or None for an unknown backend."""
        if self.config is not None and self.config.default_model_filename:
            return str(self.config.default_model_filename)
        return FILES.get(self.backend)

    def at(self, *path: str | int) -> int | None:
        """Return the line of a field of the configuration."""
        return self.tree.line_of(*path)

    def fault(
        self, rule: str, message: str, *path: str | int, line: int | None = None, edits: tuple[Edit, ...] = ()
    ) -> Problem:
        """Return a problem of the configuration, at the line of a field."""
        where = line if line is not None else self.at(*path) if path else None
        return problem(rule, self.name, f"{self.name}/{CONFIG}", message, where, edits)

    def file_fault(self, rule: str, message: str, file: Path, line: int | None = None) -> Problem:
        """Return a problem of another file of the model."""
        return problem(rule, self.name, f"{self.name}/{file.relative_to(self.folder)}", message, line)


def model_folders(repository: Path) -> list[Path]:
    """Return the folders of a repository, sorted.

    Raises:
        ArtifactError: the path is not a folder, cannot be read, contains no folder, or is the folder of one model.
    """
    if not is_folder(repository):
        what = "is a file" if exists(repository) else "no such folder"
        raise ArtifactError(f"{repository}: {what}; expected a Triton model repository")
    if is_file(repository / CONFIG):
        raise ArtifactError(
            f"{repository}: is the folder of one model; expected a repository of models. Give {repository.absolute().parent}."
        )
    try:
        folders = sorted(part for part in repository.iterdir() if is_folder(part))
    except OSError as e:
        raise ArtifactError(f"{repository}: cannot be read ({e.strerror or e})") from e
    if not folders:
        raise ArtifactError(f"{repository}: contains no model; expected a folder for each model")
    return folders
