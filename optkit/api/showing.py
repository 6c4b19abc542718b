"""The display of records for callers in Python; the command line has its own output module."""

from typing import TYPE_CHECKING

from optkit.record import Document

if TYPE_CHECKING:
    from optkit.record import Viewer


def show_records() -> None:
    """Enable the display of records in a notebook, by rich and by print()."""
    Document.viewer = _viewer


def _viewer() -> "Viewer":
    from optkit.report import showing  # imports rich, so it is imported only when a record is shown

    return showing
