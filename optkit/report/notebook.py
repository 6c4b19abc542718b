"""Tables and texts as HTML for a notebook cell: no script, nothing from the network, every text escaped.

A notebook has a light or a dark theme, and some notebooks remove style sheets. So only `style` attributes are used, and all other styles
are inherited.
"""

import html
from collections.abc import Sequence

from rich.table import Column, Table
from rich.text import Text

from optkit.untrusted.quoting import visible

_STYLES = {
    "bold": "font-weight:bold",
    "dim": "opacity:.7",
    # Each has a contrast of at least 4.2 to white and to #111, the background of dark themes.
    "green": "color:#178a40;font-weight:bold",
    "yellow": "color:#a36d00;font-weight:bold",
    "red": "color:#dc4040;font-weight:bold",
}
_TABLE = "border-collapse:collapse;font-variant-numeric:tabular-nums;margin:0"
_CAPTION = "caption-side:top;text-align:left;font-weight:bold;padding:.2em .6em"
_CELL = "padding:.15em .6em;vertical-align:top"
_TEXT = "white-space:pre-wrap;margin:.6em 0;padding:0 .6em"


def html_of(parts: Sequence[Table | Text | str]) -> str:
    """Return parts as HTML, one below the other."""
    return "".join(_table(part) if isinstance(part, Table) else _text(part) for part in parts)


def _table(table: Table) -> str:
    """Return a table with the cells that rich would print."""
    columns = table.columns
    caption = f'<caption style="{_CAPTION}">{_inline(table.title)}</caption>' if table.title else ""
    head = "".join(_cell("th", column, column.header, ' scope="col"', "border-bottom:1px solid") for column in columns)
    rows = zip(*(column.cells for column in columns), strict=True)
    body = "".join(
        f"<tr>{''.join(_cell('td', c, cell) for c, cell in zip(columns, row, strict=True))}</tr>" for row in rows
    )
    return (
        f'<div style="overflow-x:auto;margin:.6em 0"><table style="{_TABLE}">{caption}'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(tag: str, column: Column, content: object, attributes: str = "", style: str = "") -> str:
    align = f"text-align:{'right' if column.justify == 'right' else 'left'}"
    return f'<{tag}{attributes} style="{";".join(filter(None, (_CELL, align, style)))}">{_inline(content)}</{tag}>'


def _text(text: Text | str) -> str:
    return f'<pre style="{_TEXT}">{_inline(text)}</pre>'


def _inline(content: object) -> str:
    """Return an escaped text with its style in the terminal."""
    if not isinstance(content, Text):
        return _escaped(str(content))
    styles = ";".join(_STYLES[word] for word in str(content.style).split())
    text = _escaped(content.plain)
    return f'<span style="{styles}">{text}</span>' if styles else text


def _escaped(text: str) -> str:
    """Return a text with markup and unprintable characters escaped."""
    return html.escape("\n".join(map(visible, text.split("\n"))))
