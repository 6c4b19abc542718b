"""Record: a value in a file or on the command line. Document: a record with its own file."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from optkit.errors import ArtifactError, OutputError


class Record(BaseModel):
    """A frozen value; unknown keys are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Document(Record):
    """A record with the name of its schema, which distinguishes an old or foreign file from a damaged one."""

    schema_id: ClassVar[str]

    def to_json(self) -> str:
        """Return the document as JSON text, `"schema"` first. NaN and infinity are errors, because JSON has neither."""
        content = {"schema": self.schema_id} | self.model_dump(mode="json")
        return json.dumps(content, indent=2, allow_nan=False)

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """Return the JSON schema of the document's file, for other tools that read it."""
        schema = cls.model_json_schema(mode="serialization")
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            **schema,
            "properties": {"schema": {"const": cls.schema_id}, **schema["properties"]},
            "required": ["schema", *schema.get("required", ())],
        }

    def write(self, path: Path) -> None:
        """Write the document to `path` completely, or not at all.

        Raises:
            OutputError: the folder cannot be written.
        """
        with atomic_path(path) as temporary:
            temporary.write_text(self.to_json() + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a document.

        Raises:
            ArtifactError: no such file, not JSON, another schema, or fields that do not fit it.
        """
        try:
            content: Any = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
        except (OSError, ValueError) as e:
            raise ArtifactError(f"{path}: cannot be read as JSON ({e})") from e
        found = content.pop("schema", None) if isinstance(content, dict) else None
        if found != cls.schema_id:
            raise ArtifactError(
                f"{path}: schema {found!r}; this version of optkit reads {cls.schema_id!r}. Make the file again."
            )
        try:
            return cls.model_validate(content)
        except ValidationError as e:
            first, *others = faults(e)
            raise ArtifactError(f"{path}: {first}" + (f" (and {len(others)} more faults)" if others else "")) from e


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number")


def faults(error: ValidationError) -> list[str]:
    """Return one line for each fault of a validation: `where: what`."""
    return [
        f"{'.'.join(str(part) for part in fault['loc']) or 'document'}: {fault['msg'].removeprefix('Value error, ')}"
        for fault in error.errors()
    ]


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder, which replaces `path` when the block ends without an error.

    Raises:
        OutputError: the folder cannot be created or written, or the disk is full. An existing `path` is then unchanged.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
    except OSError as e:
        raise OutputError(f"{path}: cannot be written ({e.strerror or e})") from e
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as e:
        raise OutputError(f"{path}: cannot be written ({e.strerror or e})") from e
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
