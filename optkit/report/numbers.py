"""Numbers as text: sizes, times, ratios, changes."""


def size_text(size_bytes: float) -> str:
    """Return a size with its unit, in powers of 1000."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes:.0f} B"


def ms_text(ms: float) -> str:
    """Return a time in ms with three significant digits."""
    return f"{ms:.3f}" if ms < 10 else f"{ms:.1f}" if ms < 100 else f"{ms:.0f}"


def seconds_text(seconds: float) -> str:
    """Return a time in seconds, or in minutes if it is long."""
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def provider_text(provider: str) -> str:
    """Return the name of a provider without the suffix that every provider has."""
    return provider.removesuffix("ExecutionProvider")


def ratio_text(ratio: float, low: float | None, high: float | None, *, busy: bool = False) -> str:
    """Return a ratio and its interval, if any; without decimals from 100 on, so that tables keep their width.

    A star marks a ratio that was measured while the machine was busy.
    """
    digits = 2 if ratio < 100 else 0
    interval = f" ({low:.{digits}f}-{high:.{digits}f})" if low is not None and high is not None else ""
    return f"{ratio:.{digits}f}x{'*' if busy else ''}{interval}"


def change_text(change: float) -> str:
    """Return a relative change as a signed percentage, or as a factor if it is large."""
    return f"{100 * change:+.1f}%" if change < 2 else f"{1 + change:.1f}x" if change < 999 else "over 1000x"
