"""The console that every line of optkit goes through, printed records too: what files and servers say is text on it, and never more.

Square brackets are no markup, an escape sequence is written out, and on GitHub Actions no text is taken for a workflow command. rich is
imported here, so this module is imported when something is shown.
"""

import os
import re
from collections.abc import Iterable
from typing import IO, Literal

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment

from optkit.untrusted.quoting import visible

# What the runner takes for a command: two colons that begin a line, and the older form anywhere in it.
# https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands
_COMMAND = re.compile(r"^\s*:(?=:)|##(?=\[)")


class PlainConsole(Console):
    """A console that shows text as it is, and what cannot be printed as an escape."""

    def __init__(self, file: IO[str] | None = None, *, colours: bool = True) -> None:
        """Write to a file, or to what is standard error at the time."""
        system: Literal["auto"] | None = "auto" if colours else None
        super().__init__(
            file=file, stderr=file is None, markup=False, highlight=False, emoji=False, color_system=system
        )

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render, and neutralize the text of each segment; what rich itself sends to move the cursor stays."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(shown(segment.text), segment.style)


class Plain:
    """Something that holds no markup, for a console of somebody else's: what cannot be printed is an escape there too."""

    def __init__(self, renderable: RenderableType) -> None:
        """Remember what to show."""
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render, and neutralize the text of each segment."""
        for segment in console.render(self._renderable, options):
            yield segment if segment.control else Segment(shown(segment.text), segment.style)


def shown(text: str) -> str:
    """Return a text as a terminal or the log of a workflow can have it; its lines stay lines."""
    lines = text.split("\n")
    if os.environ.get("GITHUB_ACTIONS"):
        lines = [_COMMAND.sub(lambda found: f"{found[0]}\\", line) for line in lines]
    return "\n".join(map(visible, lines))
