"""The console that every line of optkit goes through: what records, files and servers say is text on it, and never more.

Square brackets are no markup, an escape sequence is written out, and on GitHub Actions no text is taken for a workflow command. rich is
imported here, so this module is imported when something is shown.
"""

import os
import re
from collections.abc import Iterable
from typing import IO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from optkit.untrusted.quoting import visible

# What the runner takes for a command: two colons that begin a line, and the older form anywhere in it.
# https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands
_COMMAND = re.compile(r"^\s*:(?=:)|##(?=\[)")


class PlainConsole(Console):
    """A console that shows text as it is, and what cannot be printed as an escape."""

    def __init__(self, file: IO[str] | None = None) -> None:
        """Write to a file, or to what is standard error at the time."""
        super().__init__(file=file, stderr=file is None, markup=False, highlight=False, emoji=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render, and neutralize the text of each segment; what rich itself sends to move the cursor stays."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(shown(segment.text), segment.style)


def shown(text: str) -> str:
    """Return a text as a terminal or the log of a workflow can have it; its lines stay lines."""
    lines = text.split("\n")
    if os.environ.get("GITHUB_ACTIONS"):
        lines = [_COMMAND.sub(lambda found: f"{found[0]}\\", line) for line in lines]
    return "\n".join(map(visible, lines))
