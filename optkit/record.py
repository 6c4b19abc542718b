"""Record: a frozen value in a file or on the command line. Document: a record with its own file and schema."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from optkit.errors import ArtifactError, OptkitError, OutputError
from optkit.system.temporary import temporary_file
from optkit.untrusted.documents import read_json
from optkit.untrusted.quoting import visible

if TYPE_CHECKING:
    from rich.console import RenderableType


SEAL = "content_sha256"


class Viewer(Protocol):
    """Displays documents. The implementation imports all document types, so it is in a higher layer."""

    def as_html(self, record: "Document") -> str:
        """Return HTML for a notebook."""

    def as_rich(self, record: "Document") -> "RenderableType":
        """Return a renderable for rich."""

    def as_text(self, record: "Document") -> str:
        """Return plain text."""


class Record(BaseModel):
    """A frozen value; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, allow_inf_nan=False)


class Document(Record):
    """A record with the name of its schema, which distinguishes a file of another version or type from a damaged file."""

    schema_id: ClassVar[str]
    sealed: ClassVar[bool] = (
        False  # its file has the hash of its own content, so that an edited or foreign one is not believed
    )
    viewer: ClassVar[Callable[[], Viewer] | None] = None  # set when a function of `optkit` is first used

    def to_dict(self) -> dict[str, Any]:
        """Return the document as the plain values of its JSON (dicts, lists, strings, numbers), with `"schema"` first."""
        content = {"schema": self.schema_id} | self.model_dump(mode="json")
        return content | {SEAL: seal_of(content)} if self.sealed else content

    def to_json(self) -> str:
        """Return the document as JSON text; NaN and infinity raise an error, because JSON does not allow them."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def _repr_html_(self) -> str | None:
        """Return the HTML display in a notebook."""
        return Document.viewer().as_html(self) if Document.viewer else None

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Write the text display in IPython."""
        printer.text("..." if cycle else str(self))

    def __rich__(self) -> "RenderableType":
        from rich.pretty import Pretty

        return Document.viewer().as_rich(self) if Document.viewer else Pretty(self)

    def __str__(self) -> str:
        return Document.viewer().as_text(self) if Document.viewer else super().__str__()

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """Return the JSON schema of the file, for other tools."""
        schema = cls.model_json_schema(mode="serialization")
        seal = {SEAL: {"type": "string", "description": "SHA-256 of all other keys"}} if cls.sealed else {}
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            **schema,
            "properties": {"schema": {"const": cls.schema_id}, **schema["properties"], **seal},
            "required": ["schema", *schema.get("required", ()), *seal],
        }

    def write(self, path: Path) -> None:
        """Write the document to `path` atomically.

        Raises:
            OutputError: the folder cannot be written.
        """
        with atomic_path(path) as temporary:
            temporary.write_text(self.to_json() + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a document.

        Raises:
            ArtifactError: the file does not exist, is not JSON, has another schema, has invalid fields, or was edited.
        """
        content: Any = read_json(path)
        found = content.pop("schema", None) if isinstance(content, dict) else None
        if found != cls.schema_id:
            raise ArtifactError(
                f"{path}: schema {found!r}; this version of optkit reads {cls.schema_id!r}. Make the file again."
            )
        if cls.sealed:
            if fault := _seal_fault({"schema": found} | content):
                raise ArtifactError(f"{path}: {fault}. Make the file again, or restore the one that optkit wrote.")
            del content[SEAL]
        try:
            return cls.model_validate(content)
        except ValidationError as e:
            first, *others = faults(e)
            raise ArtifactError(f"{path}: {first}" + (f" (and {len(others)} more faults)" if others else "")) from e


def seal_of(content: dict[str, Any]) -> str:
    """Return the hash of a document's content: of all keys but the hash itself, in the order of their names."""
    plain = {key: value for key, value in content.items() if key != SEAL}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()  # 1e999 is read as infinity


def _seal_fault(content: dict[str, Any]) -> str | None:
    """Return why the content of a document is not what optkit wrote; None where it is."""
    seal = content.get(SEAL)
    if seal is None:
        return f"has no {SEAL}, which optkit writes into every file of this kind: it was not written by optkit as it is"
    if seal != seal_of(content):
        return f"was changed after optkit wrote it: its content does not have the hash in its {SEAL}"
    return None


def faults(error: ValidationError) -> list[str]:
    """Return one line for each fault of a validation error: `where: what`."""
    return [
        f"{visible('.'.join(str(part) for part in fault['loc'])) or 'document'}: {fault['msg'].removeprefix('Value error, ')}"
        for fault in error.errors()
    ]


@contextlib.contextmanager
def validation_error_as(kind: type[OptkitError], where: str, what_to_do: str = "") -> Iterator[None]:
    """Convert a validation error in the block to an OptkitError with the message `where: faults. what_to_do`.

    Args:
        kind: class of the error to raise.
        where: start of the message.
        what_to_do: end of the message.

    Raises:
        OptkitError: the block raises a ValidationError.
    """
    try:
        yield
    except ValidationError as e:
        raise kind(f"{where}: {'; '.join(faults(e))}{f'. {what_to_do}' if what_to_do else ''}") from e


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; it replaces `path` if the block ends without an error.

    Raises:
        OutputError: the folder cannot be created or written, or the disk is full. An existing `path` stays unchanged.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_file(path) as temporary:
            yield temporary
            temporary.replace(path)
    except OSError as e:
        raise OutputError(f"{path}: cannot be written ({e.strerror or e})") from e
