"""Record: a value in a file or on the command line. Document: a record with its own file."""

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from optkit.errors import ArtifactError, OptkitError, OutputError
from optkit.untrusted.documents import read_json
from optkit.untrusted.quoting import visible

if TYPE_CHECKING:
    from rich.console import RenderableType


class Viewer(Protocol):
    """What shows documents to a person; it knows every kind of them, so it lies above this module."""

    def as_html(self, record: "Document") -> str:
        """Return HTML for a notebook."""

    def as_rich(self, record: "Document") -> "RenderableType":
        """Return what rich prints."""

    def as_text(self, record: "Document") -> str:
        """Return plain text."""


class Record(BaseModel):
    """A frozen value; unknown keys are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Document(Record):
    """A record with the name of its schema, which distinguishes an old or foreign file from a damaged one."""

    schema_id: ClassVar[str]
    viewer: ClassVar[Callable[[], Viewer] | None] = None  # set when a function of `optkit` is first used

    def to_dict(self) -> dict[str, Any]:
        """Return the document as plain values, those of its JSON: dicts, lists, texts and numbers, `"schema"` first."""
        return {"schema": self.schema_id} | self.model_dump(mode="json")

    def to_json(self) -> str:
        """Return the document as JSON text. NaN and infinity are errors, because JSON has neither."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def _repr_html_(self) -> str | None:
        """Return what a notebook shows."""
        return Document.viewer().as_html(self) if Document.viewer else None

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Write what IPython shows in a terminal."""
        printer.text("..." if cycle else str(self))

    def __rich__(self) -> "RenderableType":
        from rich.pretty import Pretty

        return Document.viewer().as_rich(self) if Document.viewer else Pretty(self)

    def __str__(self) -> str:
        return Document.viewer().as_text(self) if Document.viewer else super().__str__()

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
        content: Any = read_json(path)
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


def faults(error: ValidationError) -> list[str]:
    """Return one line for each fault of a validation: `where: what`."""
    return [
        f"{visible('.'.join(str(part) for part in fault['loc'])) or 'document'}: {fault['msg'].removeprefix('Value error, ')}"
        for fault in error.errors()
    ]


@contextlib.contextmanager
def refused_as(kind: type[OptkitError], where: str, what_to_do: str = "") -> Iterator[None]:
    """Tell a validation that fails in the block as an error of this kind: `where: what`, and what to do.

    Raises:
        OptkitError: of this kind.
    """
    try:
        yield
    except ValidationError as e:
        raise kind(f"{where}: {'; '.join(faults(e))}{f'. {what_to_do}' if what_to_do else ''}") from e


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
