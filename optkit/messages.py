"""Parts of messages: suggestions, lists, and numbers with a noun."""

import difflib
from collections.abc import Iterable, Sequence


def count(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural if the number is not 1."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listed(items: Iterable[object]) -> str:
    """Return a list as text: `a, b and c`."""
    texts = [str(item) for item in items]
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Return `. Did you mean ...?` if a known word is similar, or the list of known words."""
    near = difflib.get_close_matches(word, known, n=1)
    return f". Did you mean {near[0]!r}?" if near else f"; expected one of {', '.join(known)}"
