"""The hash that records carry of their own content, for tests of what else a record may get wrong."""

from typing import Any

from optkit.record import SEAL, seal_of


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """Return a record with the hash of its content, as one has that knows how to compute it."""
    return content | {SEAL: seal_of(content)}
