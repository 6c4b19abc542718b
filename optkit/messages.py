"""Parts of sentences: near misses, lists, numbers with their noun."""

import difflib
from collections.abc import Iterable, Sequence


def count(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listed(items: Iterable[object]) -> str:
    """Return `a, b and c`."""
    texts = [str(item) for item in items]
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Return `. Did you mean ...?` for a near miss, or the list of known words."""
    near = difflib.get_close_matches(word, known, n=1)
    return f". Did you mean {near[0]!r}?" if near else f"; expected one of {', '.join(known)}"
