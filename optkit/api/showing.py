"""Records show themselves to a caller in Python; the command line shows them by itself."""

from typing import TYPE_CHECKING

from optkit.record import Document

if TYPE_CHECKING:
    from optkit.record import Viewer


def show_records() -> None:
    """Let records show themselves in a notebook, through rich, and by print()."""
    Document.viewer = _viewer


def _viewer() -> "Viewer":
    from optkit.report import showing  # draws with rich: imported when a record is shown

    return showing
