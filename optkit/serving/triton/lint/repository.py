"""A model repository on disk: its models with their configurations and versions."""

import dataclasses
import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING

from optkit.errors import ArtifactError
from optkit.serving.triton.lint.names import FILES, PLATFORM_FILES, PLATFORMS, contradict
from optkit.serving.triton.lint.pbtxt import Edit, Tree
from optkit.serving.triton.lint.rules import Problem, Severity, problem
from optkit.untrusted.paths import exists, is_file, is_folder

if TYPE_CHECKING:
    from tritonclient.grpc import model_config_pb2 as schema

CONFIG = "config.pbtxt"


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
    def platform(self) -> str:
        """The platform, from the configuration or from a model file that has one of its own."""
        config = self.config
        if config is not None and (config.platform or config.backend):
            return str(config.platform)
        given = config.default_model_filename if config is not None else ""
        return next((platform for platform, name in PLATFORM_FILES.items() if name in (given, *self._files)), "")

    @property
    def backend(self) -> str:
        """The backend, as the server finds it. Empty if it is unknown or contradictory."""
        config = self.config
        if config is not None and config.backend:
            return "" if contradict(config.platform, config.backend) else str(config.backend)
        if self.platform:
            return PLATFORMS.get(self.platform, "")
        given = config.default_model_filename if config is not None else ""
        suffix = Path(given).suffix
        for backend, name in FILES.items():
            if (name in self._files and not given) or (suffix and suffix == Path(name).suffix):
                return backend
        return "" if given else self.backend_of_folder

    @property
    def backend_of_folder(self) -> str:
        """The backend that the server takes from a folder such as `model.dali` if nothing else names one. Otherwise empty."""
        return self.folder.name.partition(".")[2]

    @functools.cached_property
    def _files(self) -> frozenset[str]:
        """The names in the version folders."""
        return frozenset(part.name for version in self.versions.values() for part in version.iterdir())

    @property
    def filename(self) -> str | None:
        """The name of the model file in a version folder, or None for an unknown backend."""
        if self.config is not None and self.config.default_model_filename:
            return str(self.config.default_model_filename)
        return PLATFORM_FILES.get(self.platform, FILES.get(self.backend))

    def at(self, *path: str | int) -> int | None:
        """Return the line of a field of the configuration."""
        return self.tree.line_of(*path)

    def fault(
        self,
        rule: str,
        message: str,
        *path: str | int,
        line: int | None = None,
        edits: tuple[Edit, ...] = (),
        severity: Severity | None = None,
    ) -> Problem:
        """Return a problem of the configuration, at the line of a field."""
        where = line if line is not None else self.at(*path) if path else None
        return problem(rule, self.name, f"{self.name}/{CONFIG}", message, where, edits, severity=severity)

    def file_fault(
        self, rule: str, message: str, file: Path, line: int | None = None, severity: Severity | None = None
    ) -> Problem:
        """Return a problem of another file of the model."""
        return problem(
            rule, self.name, f"{self.name}/{file.relative_to(self.folder)}", message, line, severity=severity
        )


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
