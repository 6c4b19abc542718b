"""The judge of `benchmarks/int8_accuracy.py`: what it calls beaten, reached and right."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.support import BENCHMARKS


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch):
    """Return a function that imports a module of the benchmark."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def load(name: str) -> ModuleType:
        return importlib.import_module(f"int8_accuracy.{name}")

    before = set(sys.modules)
    yield load
    for name in set(sys.modules) - before:
        if name.startswith("int8_accuracy"):
            del sys.modules[name]


def test_only_what_is_better_beyond_the_noise_beats(part) -> None:
    frontier = part("frontier")
    base = frontier.Point("base", 30.0, 2.0, 2.2)
    for other, wins in {
        ("same", 30.05, 2.1, 2.3): False,  # within the spread and within 0.1 dB
        ("faster", 30.0, 2.3, 2.5): True,
        ("faster and worse", 29.0, 2.3, 2.5): False,
        ("better", 31.0, 2.0, 2.1): True,
        ("better and slower", 31.0, 1.5, 1.9): False,
    }.items():
        assert frontier.beats(frontier.Point(*other), base) is wins, other
    points = [base, frontier.Point("faster", 30.0, 2.3, 2.5), frontier.Point("exact", 60.0, 1.0, 1.0)]
    assert frontier.beaten(points) == {"base": "faster"}


def test_quality_is_that_of_the_formulas_and_nan_is_none(part) -> None:
    tasks = part("tasks")
    task = tasks.Task("t", "", "", (), {}, "y", list, list, "top-1", lambda rows: float(rows[0, 0]), tasks._classes)
    expected = np.array([[1, 0], [0, 1], [1, 0], [3, 4]], np.float32)
    found = np.array([[1, 0], [0, 1], [0, 1], [3, 4]], np.float32)
    assert tasks.quality(task, expected, found) == {
        "score": 1.0, "agreement": 0.75, "cosine": 0.75, "sqnr_db": pytest.approx(10 * np.log10(28 / 2)),
    }  # fmt: skip
    found[0, 0] = np.nan
    assert set(tasks.quality(task, expected, found).values()) == {None}


def results(**speeds: float) -> dict:
    """Return results of ResNet-18 with these speeds, of tools that are all alike in accuracy."""
    made = {
        "exit": 0,
        "seconds": 1.0,
        "size_bytes": 1,
        "message": "",
        "score": None,
        "agreement": 1.0,
        "cosine": 0.999,
        "sqnr_db": 30.0,
    }
    names = {"ours": "optkit static", "theirs": "ort-static"}
    speed = [
        {"tool": names[key], "threads": threads, "batch": batch, "ratio": ratio, "low": ratio, "high": ratio}
        for key, ratio in speeds.items()
        for threads in (1, 2)
        for batch in (1, 8)
    ]
    task = {"what": "", "score_name": "", "made": {names[key]: made for key in speeds}, "speed": speed}
    task |= {"fp32": {"score": None, "size_bytes": 4}, "fp32_speed": [], "load_before": 0.0}
    failed = {"exit": 1, "seconds": 1.0, "message": "refused"}
    task["made"]["modelopt"] = failed
    return {"tasks": {"resnet18": task}, "machine": dict.fromkeys(("cpu", "cores", "memory_gib", "vnni", "system", "python")),
            "versions": {"onnx": "1"}, "quick": False}  # fmt: skip


def test_targets_are_reached_or_not(part) -> None:
    report = part("report")
    reached = {what: good for what, _, good in report.targets(results(ours=3.2, theirs=1.1)["tasks"])}
    assert reached["ResNet-18 at 3x or more, 1 thread"]
    assert all(reached.values())
    missed = {what: good for what, _, good in report.targets(results(ours=1.1, theirs=3.2)["tasks"])}
    assert missed == {"ResNet-18 at 3x or more, 1 thread": False}


def test_the_frontier_says_where_a_peer_is_out_of_reach(part) -> None:
    report = part("report")
    above = report.frontiers(results(ours=3.2, theirs=1.1)["tasks"])
    assert [good for *_, good in above] == [True] * 8  # four settings by two measures
    below = report.frontiers(results(ours=1.1, theirs=3.2)["tasks"])
    assert {(missed, good) for _, _, missed, good in below} == {("ort-static", False)}
    # A file that is slower than FP32 is out of nobody's reach: FP32 is as good.
    assert all(good for *_, good in report.frontiers(results(ours=0.8, theirs=0.9)["tasks"]))


def test_optkits_own_pick_is_told_apart_from_its_other_files(part) -> None:
    found = results(ours=3.2, theirs=3.0)
    task = found["tasks"]["resnet18"]
    task["made"]["optkit"] = dict(task["made"]["optkit static"], sqnr_db=20.0)
    task["speed"] += [dict(s, tool="optkit", ratio=1.0, low=1.0, high=1.0) for s in task["speed"][:4]]
    rows = part("report").frontiers(found["tasks"])
    assert {pick for what, pick, *_ in rows if "SQNR" in what} == {"beaten by ort-static"}
    assert all(good for *_, good in rows)


def test_a_processor_without_vnni_is_named_where_a_target_is_missed(part) -> None:
    found = results(ours=1.1)
    found["machine"]["vnni"] = False
    text = part("report").markdown(found)
    assert "This processor has no VNNI" in text
    assert "| 1.10x |" in text.replace("optkit static: ", "")
    assert "NO; the processor has no VNNI" in text
    assert "no VNNI" not in part("report").markdown(results(ours=1.1))


def test_the_report_names_who_is_beaten_and_who_wrote_nothing(part) -> None:
    text = part("report").markdown(results(ours=3.2, theirs=1.1))
    assert "| resnet18 | ort-static | 30.0 | 1.10x (1.10-1.10) | optkit static |" in text
    assert "| resnet18 | optkit static | 30.0 | 3.20x (3.20-3.20) |  |" in text
    assert "- modelopt wrote no file: refused" in text
    slow = part("report").markdown(results(ours=0.9))
    assert "| resnet18 | optkit static | 30.0 | 0.90x (0.90-0.90) | FP32 |" in slow


def test_the_frontier_of_a_task_is_that_of_its_own_speeds(part) -> None:
    text = part("report").markdown(results(ours=3.2, theirs=1.1))
    assert "- frontier of SQNR against speed, 2 threads, batch 8: optkit static, FP32" in text


def test_the_peers_that_are_here_quantize_what_they_are_given(part, onnx_linear, tmp_path: Path) -> None:
    import onnx

    attempt = part("attempt")
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "0.npz", input=np.eye(4, dtype=np.float32))
    for tool, operator in ((attempt.ort_static, "QuantizeLinear"), (attempt.ort_dynamic, "DynamicQuantizeLinear")):
        tool(onnx_linear.path, tmp_path / "data", tmp_path / "out.onnx")
        assert operator in {node.op_type for node in onnx.load(tmp_path / "out.onnx").graph.node}


def test_what_else_was_tried_is_told_beside_plain_static_int8(part) -> None:
    found = results(ours=3.2)
    rows = [("static", 20.0), ("static, bias correction", 19.5)]
    found["tasks"]["resnet18"]["methods"] = [
        {"method": m, "sqnr_db": db, "cosine": 0.99, "agreement": None, "score": None} for m, db in rows
    ]
    assert "| resnet18 | static, bias correction | 19.5 | -0.5 | 0.99000 | - |" in part("report").markdown(found)
    assert "What else may help" not in part("report").markdown(results(ours=3.2))


def test_bias_correction_takes_the_mean_error_away(part, onnx_linear, tmp_path: Path) -> None:
    import onnx
    import onnxruntime
    from onnx import numpy_helper

    methods = part("methods")
    model = onnx.load(onnx_linear.path)
    weights = {t.name: t for t in model.graph.initializer}
    (node,) = [n for n in model.graph.node if n.op_type in ("Gemm", "MatMul")]
    weight = numpy_helper.to_array(weights[node.input[1]]) + np.linspace(0.3, 0.4, 1, dtype=np.float32)
    weights[node.input[1]].CopyFrom(numpy_helper.from_array(weight, node.input[1]))
    onnx.save(model, tmp_path / "m.onnx")
    x = np.random.default_rng(0).uniform(1, 2, (64, weight.shape[methods._output_axis(node) ^ 1])).astype(np.float32)
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "0.npz", input=x)
    axis = methods._output_axis(node)
    scale = np.abs(weight).max(axis=axis ^ 1, keepdims=True) / methods.LARGEST
    rounded = (np.rint(weight / scale) * scale - weight).astype(np.float32)
    added = x @ (rounded.T if axis == 0 else rounded)

    def run(path: Path) -> np.ndarray:
        return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"input": x})[0]

    moved = run(methods._corrected(tmp_path / "m.onnx", tmp_path / "data")) - run(tmp_path / "m.onnx")
    assert np.abs(added.mean(axis=0)).max() > 1e-4
    assert moved == pytest.approx(np.broadcast_to(-added.mean(axis=0), moved.shape), abs=1e-5)


def test_equalised_convolutions_are_equal_in_float_and_in_their_ranges(part, tmp_path: Path) -> None:
    import onnx
    import onnxruntime
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(0)
    shapes = {"w1": (4, 1, 3, 3), "b1": (4,), "w2": (2, 4, 3, 3)}
    weights = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    weights["w1"][0] *= 50
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Conv", ["r", "w2"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["n", c, None, None]) for n, c in (("x", 1), ("y", 2))
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    path = part("methods")._equalised(tmp_path / "m.onnx")
    x = {"x": rng.standard_normal((3, 1, 8, 8)).astype(np.float32)}
    right, found = (
        onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, x)[0]
        for file in (tmp_path / "m.onnx", path)
    )
    assert found == pytest.approx(right, rel=1e-3, abs=1e-3)
    graph = onnx.load(path).graph
    made = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    first, second = (made[node.input[1]] for node in graph.node if node.op_type == "Conv")
    assert np.abs(first).max(axis=(1, 2, 3)) == pytest.approx(np.abs(second).max(axis=(0, 2, 3)), rel=1e-4)
