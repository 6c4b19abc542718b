from measured import measurement, speed_up

from optkit.choose import fastest

MEASURED = [measurement(name, [1.0], batch=batch) for batch in (1, 8) for name in ("source", "script", "onnx", "int8")]
RATIOS = {"script": (1.0, 1.0), "onnx": (2.0, 2.0), "int8": (1.0, 9.0)}
SPEED_UPS = [
    speed_up(name, r, batch=batch) for name, ratios in RATIOS.items() for batch, r in zip((1, 8), ratios, strict=True)
]


def test_the_largest_geometric_mean_over_the_batches_wins() -> None:
    winner = fastest(MEASURED, SPEED_UPS, ["script", "onnx", "int8"])
    assert winner is not None
    assert winner.artifact == "int8"
    assert winner.reason == (
        "the fastest of 3 that passed every gate: 3.00x source (geometric mean over batch 1, 8); next is onnx with 2.00x"
    )


def test_one_that_did_not_pass_never_wins() -> None:
    winner = fastest(MEASURED, SPEED_UPS, ["script", "onnx"])
    assert winner is not None
    assert winner.artifact == "onnx"
    assert "int8" not in winner.reason


def test_the_only_one_wins_without_a_next() -> None:
    winner = fastest(MEASURED, SPEED_UPS, ["script"])
    assert winner is not None
    assert winner.reason == "the fastest of 1 that passed every gate: 1.00x source (geometric mean over batch 1, 8)"


def test_nobody_wins_where_nobody_passed_or_was_measured() -> None:
    assert fastest(MEASURED, SPEED_UPS, []) is None
    assert fastest(MEASURED, SPEED_UPS, ["never-measured"]) is None
