"""Choosing: who wins by what, ties, and the reason that each other one is given."""

from itertools import count

import pytest

from optkit.artifact.findings import Measurement, SpeedUp
from optkit.choose.winner import Candidate, Choice, Winner, choose_winner
from tests.support.measured import measurement, speed_up

BLOCKS = 8
RATIOS = {"script": (1.0, 1.0), "onnx": (2.0, 2.0), "int8": (1.0, 9.0)}  # of the source, at batch 1 and 8
SPEED_UPS = [speed_up(name, r, batch=b) for name, both in RATIOS.items() for b, r in zip((1, 8), both, strict=True)]


def blocks(ms: float, wobble: float = 0.0, phase: int = 0) -> list[list[float]]:
    """Return the blocks of an artifact that takes so long, more or less."""
    return [[ms * (1 + wobble * ((i * 7 + phase * 3) % 5 - 2))] for i in range(BLOCKS)]


def measured(**times_ms: tuple[float, float]) -> list[Measurement]:
    """Return measurements at batch 1 and 8, with a wobble of up to 2 %."""
    phase = count()
    return [
        measurement(name, *blocks(ms, 0.01, next(phase)), batch=batch)
        for name, both in times_ms.items()
        for batch, ms in zip((1, 8), both, strict=True)
    ]


MEASURED = measured(source=(9, 9), script=(9, 9), onnx=(4.5, 4.5), int8=(9, 1))


def choose(
    *candidates: Candidate, among: list[Measurement] = MEASURED, speed_ups: list[SpeedUp] = SPEED_UPS, **choice: object
) -> Winner:
    winner = choose_winner(candidates, among, speed_ups, Choice.model_validate(choice))
    assert winner is not None
    return winner


def test_a_winner_of_a_busy_machine_is_named_as_one() -> None:
    busy = [m.model_copy(update={"blocks_waited": (0.5,) * BLOCKS}) if m.artifact == "onnx" else m for m in MEASURED]
    said = "; measured while the machine was busy: another artifact may win on a quiet machine"
    assert choose(Candidate("onnx"), Candidate("int8"), among=busy).reason.endswith(said)
    assert said not in choose(Candidate("script"), Candidate("int8"), among=busy).reason  # it was not among them
    assert said not in choose(Candidate("onnx"), Candidate("int8"), among=busy, by="size").reason
    # The source was CPU-contended, so every speed-up over it is too large.
    ups = [s.model_copy(update={"cpu_contended_blocks": 1}) for s in SPEED_UPS]
    assert choose(Candidate("onnx"), speed_ups=ups).reason.endswith(said)


def reasons(winner: Winner) -> dict[str, str]:
    return {lost.artifact: lost.reason for lost in winner.lost}


def test_the_smallest_geometric_mean_of_the_latencies_wins() -> None:
    winner = choose(Candidate("script"), Candidate("onnx"), Candidate("int8"))
    assert winner.artifact == "int8"
    assert winner.reason == ("the fastest of 3 that passed every gate: 3.00x source (geometric mean over batch 1, 8)")
    assert reasons(winner)["onnx"].startswith("slower: 1.5")
    assert "(95 % interval 1.4" in reasons(winner)["onnx"]


def test_the_latency_of_one_batch_can_be_what_counts() -> None:
    winner = choose(Candidate("script"), Candidate("onnx"), Candidate("int8"), batch=1)
    assert winner.artifact == "onnx"
    assert winner.reason == "the fastest of 3 that passed every gate: 2.00x source (at batch 1)"


def test_one_that_did_not_pass_never_wins_and_keeps_its_reason() -> None:
    winner = choose(Candidate("script"), Candidate("onnx"), Candidate("int8", refused="parity: it differs"))
    assert winner.artifact == "onnx"
    assert "of 2 that passed" in winner.reason
    assert reasons(winner)["int8"] == "parity: it differs"


def test_one_that_was_not_measured_cannot_win() -> None:
    assert reasons(choose(Candidate("onnx"), Candidate("other")))["other"] == "not measured"


def test_nobody_wins_where_nobody_passed_or_was_measured() -> None:
    assert choose_winner([], MEASURED, SPEED_UPS, Choice()) is None
    assert choose_winner([Candidate("onnx", refused="no")], MEASURED, SPEED_UPS, Choice()) is None
    assert choose_winner([Candidate("never-measured")], MEASURED, SPEED_UPS, Choice()) is None


TIED = measured(a=(1.0, 1.0), b=(1.001, 1.001), c=(1.2, 1.2))


def test_a_tie_is_broken_by_accuracy() -> None:
    winner = choose(
        Candidate("a", accuracy=0.98), Candidate("b", accuracy=0.99), Candidate("c", accuracy=1.0), among=TIED
    )
    assert winner.artifact == "b"
    assert reasons(winner)["a"].startswith("no measured difference in speed, ")
    assert reasons(winner)["a"].endswith("; less accurate: 0.9800 against 0.9900")
    assert reasons(winner)["c"].startswith("slower: ")


def test_a_tie_of_equal_accuracy_is_broken_by_size() -> None:
    winner = choose(
        Candidate("a", size_bytes=2000, accuracy=0.9), Candidate("b", size_bytes=1000, accuracy=0.9), among=TIED
    )
    assert winner.artifact == "b"
    assert reasons(winner)["a"].endswith("; equal accuracy, but larger: 2,000 bytes against 1,000")


def test_a_known_accuracy_beats_an_unknown_one() -> None:
    winner = choose(Candidate("a"), Candidate("b", accuracy=0.1), among=TIED)
    assert winner.artifact == "b"
    assert reasons(winner)["a"].endswith("less accurate: not known against 0.1000")


def test_noise_is_no_tie_where_the_estimates_are_far_apart() -> None:
    """Two blocks that say nothing must not let a smaller model win that looks twice as slow."""
    noisy = [measurement("a", [1.0], [2.0]), measurement("b", [4.0], [2.0])]
    winner = choose(Candidate("a", size_bytes=2), Candidate("b", size_bytes=1), among=noisy)
    assert winner.artifact == "a"
    assert reasons(winner)["b"].startswith("slower: 2.000x the time (95 % interval 0.0")


def test_one_block_ties_only_what_is_close() -> None:
    once = [measurement("a", [1.0]), measurement("b", [1.04]), measurement("c", [1.06])]
    winner = choose(
        Candidate("a", size_bytes=3), Candidate("b", size_bytes=2), Candidate("c", size_bytes=1), among=once
    )
    assert winner.artifact == "b"
    assert reasons(winner)["a"].endswith("; equal accuracy, but larger: 3 bytes against 2")


def test_the_largest_throughput_is_that_of_the_best_batch() -> None:
    among = measured(a=(1.0, 9.0), b=(2.0, 4.0))  # a: 1000 and 889 samples/s, b: 500 and 2000
    winner = choose(Candidate("a"), Candidate("b"), among=among, by="throughput")
    assert winner.artifact == "b"
    assert winner.reason == (
        "the largest throughput of 2 that passed every gate: 1,990 samples/s at batch 8 by its median"
    )
    assert reasons(winner)["a"].startswith("slower: ")


def test_the_smallest_wins_by_size_and_accuracy_breaks_the_tie() -> None:
    winner = choose(
        Candidate("script", size_bytes=500), Candidate("onnx", size_bytes=100, accuracy=0.9),
        Candidate("int8", size_bytes=100, accuracy=0.8), by="size",
    )  # fmt: skip
    assert winner.artifact == "onnx"
    assert winner.reason == "the smallest of 3 that passed every gate: 100 bytes"
    assert reasons(winner) == {
        "script": "larger: 500 bytes against 100", "int8": "less accurate: 0.8000 against 0.9000",
    }  # fmt: skip


@pytest.mark.parametrize("by", ["latency", "throughput", "size"])
def test_every_other_candidate_is_told_why(by: str) -> None:
    names = ["script", "onnx", "int8"]
    winner = choose(*(Candidate(name, size_bytes=i) for i, name in enumerate(names)), by=by)
    assert {winner.artifact, *reasons(winner)} == set(names)
    assert all(reasons(winner).values())
