"""The record of a smoke test as text."""

from optkit.serving.smoke import Replay, SmokeRecord


def smoke_text(record: SmokeRecord) -> str:
    """Return one line for each version at each URL, and the totals."""
    lines = [_line(replay) for replay in record.replays]
    wrong = sum(replay.fault is not None for replay in record.replays)
    lines += record.notes
    lines.append(f"{len(record.replays)} tested, {wrong} failed")
    return "\n".join(lines)


def _line(replay: Replay) -> str:
    where = f"{replay.model} version {replay.version} at {replay.url}"
    if replay.fault:
        return f"failed {where}: {replay.fault}"
    largest = max((output.max_abs or 0.0 for output in replay.outputs), default=0.0)
    return f"ok     {where}: {len(replay.outputs)} outputs, max abs {largest:.3g}"
