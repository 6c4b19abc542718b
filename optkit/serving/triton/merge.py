"""An existing config.pbtxt: it is kept, merged with the new configuration, or refused, and never silently overwritten."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from optkit.errors import ArtifactError, OutputError
from optkit.messages import listed
from optkit.serving.triton.config import config_text, differing_fields, parse_config, read_config
from optkit.serving.triton.lint.pbtxt import Edit, Tree, apply

if TYPE_CHECKING:
    from tritonclient.grpc import model_config_pb2 as schema


@dataclasses.dataclass(frozen=True)
class Merged:
    """The text to write. `original` is the old content, to be kept beside it, or None if nothing is lost."""

    text: str
    original: bytes | None = None
    notes: tuple[str, ...] = ()


def merge_config(path: Path, config: "schema.ModelConfig", written: str | None, *, force: bool) -> Merged:
    """Merge the new configuration with an existing one.

    Args:
        path: the existing config.pbtxt.
        config: the new configuration.
        written: the text that optkit wrote last, or None if it is unknown.
        force: allow changes of fields that optkit wrote.

    Raises:
        OutputError: the file cannot be read, or differs and `force` is not set, or has a hand edit in a field that would change.
    """
    try:
        found = read_config(path)
        text = path.read_bytes()
    except (ArtifactError, OSError) as e:
        if not force:
            raise OutputError(f"{e}. Fix it, or use --force to replace it.") from e
        return _replaced(path, config, path.read_bytes())
    differing = differing_fields(found, config)
    if not differing:
        return Merged(text.decode())
    base = _parsed(written)
    edited = set(differing_fields(found, base)) if base is not None else set(differing)
    wanted = set(differing_fields(config, base)) if base is not None else set(differing)
    if base is not None and not wanted & set(differing):
        note = f"config.pbtxt keeps your own {listed(sorted(edited))}"
        return Merged(text.decode(), notes=(note,))
    if not force:
        raise OutputError(
            f"{path}: {listed(differing)} differs from the new configuration; all versions share this file. "
            f"Give the same options, set another name, or use --force to replace it."
        )
    if base is None:
        return _replaced(path, config, text)
    both = sorted(edited & wanted & set(differing))
    if both:
        raise OutputError(
            f"{path}: {listed(both)} has a hand edit that conflicts with the new configuration. "
            f"Put your edit into the options or the serve entry, or delete the file."
        )
    return _merged(text.decode(), config, sorted(wanted & set(differing)), sorted(edited))


def _parsed(written: str | None) -> "schema.ModelConfig | None":
    try:
        return parse_config(written, Path("optkit.json")) if written is not None else None
    except ArtifactError:
        return None


def _replaced(path: Path, config: "schema.ModelConfig", original: bytes) -> Merged:
    return Merged(config_text(config), original, (f"{path.name} was replaced; the old file is {path.name}.orig",))


def _merged(text: str, config: "schema.ModelConfig", fields: list[str], edited: list[str]) -> Merged:
    """Replace these fields in the user's text, and leave the rest unchanged."""
    tree = Tree(text)
    edits: list[Edit] = []
    for field in fields:
        new = _field_text(config, field)
        statements = tree.statements(tree.root, field)
        edits += [tree.removal(statement) for statement in statements[1:]]
        if statements and new:
            edits.append(Edit(statements[0].start, statements[0].end, new.rstrip("\n")))
        elif statements:
            edits.append(tree.removal(statements[0]))
        else:
            edits.append(Edit(len(text), len(text), ("" if text.endswith("\n") else "\n") + new))
    notes = (f"config.pbtxt keeps your own {listed(edited)}",) if edited else ()
    return Merged(apply(text, edits), notes=notes)


def _field_text(config: "schema.ModelConfig", field: str) -> str:
    """Return one field of a configuration as text, or an empty text if it is not set."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2 as schema

    if field == "max_batch_size":
        return f"max_batch_size: {config.max_batch_size}\n"  # protobuf omits 0
    only = schema.ModelConfig()
    only.CopyFrom(config)
    for descriptor in config.DESCRIPTOR.fields:
        if descriptor.name != field:
            only.ClearField(descriptor.name)
    return str(text_format.MessageToString(only))
