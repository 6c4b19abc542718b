"""The paths that need a GPU, on a stand-in for TensorRT 8.6, 10 and 11 that has the members of the real bindings and no other.

What these tests prove is the logic: which calls are made in which release, in which order, on which buffers. That TensorRT answers as the
stand-in does is not proven by them; benchmarks/gpu does that on a GPU.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from optkit import onnx_file
from optkit.api.package import package_files
from optkit.artifact import Artifact, Passport, Precision, read_passport
from optkit.artifact.engine import EngineFacts, LayerShare
from optkit.artifact.findings import Tolerance
from optkit.artifact.tensors import corners
from optkit.checks import Prover, Requirements
from optkit.choose.engine import layer_notes
from optkit.choose.stage import run_stage
from optkit.data import Samples
from optkit.errors import FeedError, RunnerError, StageError
from optkit.runners import Device, open_runner
from optkit.runners.base import CallPlan
from optkit.runners.tensorrt import TensorRtRunner, layer_shares
from optkit.serving import TritonServing
from optkit.serving.golden import read_golden
from optkit.stages import BuildTensorRt, ConvertFp16, ExportOnnx, QuantizeStatic
from optkit.tensorrt.installed import forget
from optkit.tensorrt.process import WORKER
from optkit.tensorrt.worker.layers import types_of
from tests.support import zoo
from tests.support.project import CommandLine, files_below
from tests.support.tensorrt_standin import STANDIN, standing_in
from tests.support.zoo import Make

MEMBERS: dict[str, Any] = json.loads((STANDIN / "members.json").read_text())
RULE = CallPlan(drop_s=0, drop_calls=1, block_s=0, block_calls=5)


@pytest.fixture(params=["8.6", "10", "11"])
def release(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Let workers find a stand-in for this release, and a GPU."""
    for _ in standing_in(request.param, monkeypatch):
        yield request.param


# What a release does not have: its classes must not have it either.
ABSENT = {
    "8.6": ("BuilderFlag.STRIP_PLAN", "BuilderFlag.BF16", "NetworkDefinitionCreationFlag.STRONGLY_TYPED", "IBuilderConfig.progress_monitor",
            "ParserError.node_name", "ParserError.node_operator", "HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY",
            "ICudaEngine.device_memory_size_v2", "IBuilderConfig.set_compute_capability"),
    "10": ("IBuilderConfig.max_workspace_size", "Builder.build_engine", "Builder.max_batch_size", "IExecutionContext.execute_async_v2",
           "ICudaEngine.num_bindings", "IBuilderConfig.set_compute_capability"),
    "11": ("BuilderFlag.FP16", "BuilderFlag.INT8", "IBuilderConfig.int8_calibrator", "IBuilderConfig.max_workspace_size",
           "NetworkDefinitionCreationFlag.EXPLICIT_BATCH", "Builder.platform_has_fast_fp16", "ICudaEngine.device_memory_size",
           "IExecutionContext.execute_async_v2", "IBuilderConfig.set_compute_capability"),
}  # fmt: skip


STAGE = BuildTensorRt(runtime="tensorrt", timing_cache="none")


def built(stage: BuildTensorRt, source: Artifact, folder: Path) -> tuple[Artifact, dict[str, Any]]:
    """Return an engine, and the settings of the stand-in's builder."""
    engine = stage.run(source, folder)
    return engine, json.loads(engine.path.read_bytes())


def test_the_lists_are_those_of_the_real_bindings(rtx: None) -> None:
    import tensorrt_rtx_bindings as real

    for name, members in MEMBERS["rtx"].items():
        found = getattr(real, name)
        public = set(getattr(found, "__members__", ())) or {m for m in dir(found) if not m.startswith("_")}
        assert set(members) == public, name
    assert not hasattr(real.BuilderFlag, "FP16")
    assert not hasattr(real.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH")


def test_a_call_that_a_release_does_not_have_fails(release: str) -> None:
    import subprocess
    import sys

    code = "import tensorrt as t\nclass L(t.ILogger): pass\nc = t.Builder(L()).create_builder_config()\nc.progress_monitor = None"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (found.returncode != 0) == (release == "8.6")
    assert ("has no attribute 'progress_monitor'" in found.stderr) == (release == "8.6")


def test_what_a_release_does_not_have_is_not_on_its_classes(release: str) -> None:
    import subprocess
    import sys

    code = "import sys, tensorrt\nfor name in sys.argv[1:]:\n    owner, member = name.split('.')\n    print(hasattr(getattr(tensorrt, owner), member))"
    found = subprocess.run([sys.executable, "-c", code, *ABSENT[release]], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False"] * len(ABSENT[release])
    listed = [name for name in ABSENT[release] if name.partition(".")[2] in MEMBERS[release][name.partition(".")[0]]]
    assert not listed


def test_int8_is_a_flag_in_8_6_and_no_calibrator_is_used(release: str, make: Make, tmp_path: Path) -> None:
    quantized = QuantizeStatic(calibration=f"{zoo.HERE}:conv_feeds", target="tensorrt")
    source = make("conv", ExportOnnx(exporter="torchscript", opset=20), quantized, ConvertFp16())
    engine, settings = built(STAGE, source, tmp_path)
    assert engine.engine
    assert engine.engine.precision == "int8+fp16"
    assert settings["flags"] == (["FP16", "INT8"] if release == "8.6" else [])
    text = "".join(path.read_text() for path in WORKER.glob("*.py"))
    assert not [word for word in ("calibrator", "IInt8", "dynamic_range") if word in text]


def test_types_are_flags_in_8_6_and_the_network_s_own_later(release: str, make: Make, tmp_path: Path) -> None:
    source = make("linear", ExportOnnx(exporter="torchscript", opset=17), ConvertFp16())
    engine, settings = built(STAGE, source, tmp_path)
    facts = engine.engine
    assert facts is not None
    assert facts.precision == "fp16"
    assert facts.typed == (release != "8.6")
    assert settings["flags"] == (["FP16"] if release == "8.6" else [])
    assert settings["previews"] == (["PROFILE_SHARING_0806"] if release == "8.6" else [])
    assert settings["verbosity"] == "DETAILED"
    bits = MEMBERS[release]["NetworkDefinitionCreationFlag"]
    expected = [name for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED") if name in bits]
    assert settings["network_flags"] == sum(1 << bits.index(name) for name in expected)
    assert (facts.gpu, facts.driver, facts.targets) == ("Stand-in GPU", "12.4", ("sm86",))
    assert facts.warnings == ("a warning of the stand-in",)


def test_settings_reach_the_builder(release: str, linear: Artifact, tmp_path: Path) -> None:
    stage = STAGE.model_copy(
        update={
            "workspace_mib": 64,
            "optimization_level": 5,
            "hardware_compatible": "ampere-plus",
            "version_compatible": True,
            "refit": True,
        }
    )
    _, settings = built(stage, linear, tmp_path)
    assert settings["pools"] == {"WORKSPACE": 64 << 20}
    assert settings["level"] == 5
    assert settings["hardware"] == "AMPERE_PLUS"
    assert settings["flags"] == ["REFIT", "VERSION_COMPATIBLE"]
    assert settings["profiles"] == [{"input": [[1, 4], [4, 4], [16, 4]]}]


@pytest.mark.parametrize("tf32", [False, True])
def test_fp32_is_computed_in_tf32_only_where_that_is_asked_for(
    release: str, tf32: bool, linear: Artifact, tmp_path: Path
) -> None:
    engine, settings = built(STAGE.model_copy(update={"tf32": tf32}), linear, tmp_path)
    assert settings["flags"] == (["TF32"] if tf32 else [])  # it is set by default
    assert engine.precision is Precision.FP32
    assert engine.compute_precision is (Precision.FP16 if tf32 else Precision.FP32)


def test_what_a_release_does_not_have_is_refused_before_the_build(
    release: str, linear: Artifact, tmp_path: Path
) -> None:
    stage = STAGE.model_copy(update={"strip": True, "hardware_compatible": "same-compute-capability"})
    if release != "8.6":
        built(stage, linear, tmp_path / "out")
        return
    with pytest.raises(
        StageError, match=r"--strip: this release does not have it; --hardware-compatible same-compute-capability: this"
    ):
        stage.run(linear, tmp_path / "out")
    assert files_below(tmp_path / "out") == set()


def test_another_gpu_than_the_one_here_is_refused(release: str, linear: Artifact, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="--gpu sm89: it builds only for the GPU of this machine, sm86"):
        STAGE.model_copy(update={"gpu": ("sm89",)}).run(linear, tmp_path / "out")
    built(STAGE.model_copy(update={"gpu": ("sm86",)}), linear, tmp_path / "here")


def test_timings_are_kept_and_a_foreign_cache_is_ignored_with_one_line(
    release: str, linear: Artifact, tmp_path: Path
) -> None:
    cache = tmp_path / "cache" / "timings"
    stage = STAGE.model_copy(update={"timing_cache": str(cache)})
    first, _ = built(stage, linear, tmp_path / "first")
    kept = cache.read_bytes()
    assert kept.startswith(b"timings of")
    assert not [note for note in first.notes if "timing" in note]
    cache.write_bytes(b"timings of another release")
    again, _ = built(stage, linear, tmp_path / "again")
    assert [note for note in again.notes if "timing" in note] == [
        f"timing cache {cache}: made by another TensorRT, GPU or driver; it is ignored and overwritten"
    ]
    assert cache.read_bytes() == kept


def test_the_usual_cache_is_one_file_for_each_gpu_release_and_driver(
    release: str, linear: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optkit.stages.build_tensorrt.TIMING_CACHE", tmp_path / "cache")
    built(STAGE.model_copy(update={"timing_cache": "auto"}), linear, tmp_path / "out")
    version = {"8.6": "8.6.0", "10": "10.14.1.48", "11": "11.4.1.5"}[release]
    assert files_below(tmp_path / "cache") == {f"Stand-in_GPU-{version}-driver12.4.timing"}


def test_timings_that_a_killed_build_left_half_written_go(release: str, linear: Artifact, tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "timings"
    cache.parent.mkdir()
    left = subprocess.run(
        [sys.executable, "-c", "from optkit.system.temporary import temporary_name as t; print(t('timing'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    (cache.parent / left.stdout.strip()).write_bytes(b"half")
    built(STAGE.model_copy(update={"timing_cache": str(cache)}), linear, tmp_path / "out")
    assert files_below(cache.parent) == {"timings"}


def test_every_unknown_operator_is_told_by_a_parser_that_stops_at_the_first(release: str, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Det", ["x"], ["a"], name="/first/Det"),
        helper.make_node("Det", ["x"], ["b"], name="/second/Det"),
        helper.make_node("Add", ["a", "b"], ["y"], name="/Add"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch"])
    path = tmp_path / "det.onnx"
    onnx.save(
        helper.make_model(
            helper.make_graph(nodes, "g", [x], [y]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
        ),
        path,
    )
    with pytest.raises(StageError) as raised:
        STAGE.run(onnx_file.describe(path, zoo.BATCH), tmp_path / "out")
    for name in ("/first/Det, operator Det in module 'first'", "/second/Det, operator Det in module 'second'"):
        assert str(raised.value).count(name) == 1


@pytest.mark.parametrize("name", ["linear", "two", "dynamic_length", "buffered"])
def test_answers_are_right_at_every_corner(name: str, release: str, make: Make, tmp_path: Path) -> None:
    sample = zoo.SAMPLES[name]
    engine, _ = built(STAGE, make(name, ExportOnnx(exporter="torchscript", opset=17)), tmp_path)
    with open_runner(engine, Device.CUDA) as runner:
        assert runner.provider.startswith("tensorrt ")
        for sizes in corners(sample.dims):
            found = runner.infer(sample.feed(sizes))
            for output, want in sample.expected(sample.feed(sizes)).items():
                assert found[output].dtype == want.dtype
                np.testing.assert_allclose(found[output], want, atol=1e-5, rtol=1e-5, err_msg=str(sizes))


def test_the_profile_is_picked_by_shape_and_a_size_between_two_is_refused(
    release: str, linear: Artifact, tmp_path: Path
) -> None:
    profiles = BuildTensorRt(profiles=({"input": "1x4,2x4,4x4"}, {"input": "8x4,8x4,16x4"})).profiles
    engine, _ = built(STAGE.model_copy(update={"profiles": profiles}), linear, tmp_path)
    sample = zoo.SAMPLES["linear"]
    with open_runner(engine, Device.CUDA) as runner:
        for batch in (2, 16, 4, 8):
            feed = sample.feed({"batch": batch})
            np.testing.assert_allclose(runner.infer(feed)["output"], sample.expected(feed)["output"], atol=1e-5)
        for batch in (6, 17):
            with pytest.raises(
                FeedError,
                match=rf"no profile of the engine fits input \[{batch}, 4\]; it was built for input from \[1, 4\]",
            ):
                runner.infer(sample.feed({"batch": batch}))
        runner.infer(sample.feed({"batch": 1}))  # and it lives on


def test_int64_that_8_6_has_not_is_narrowed_and_never_wrapped(release: str, make: Make, tmp_path: Path) -> None:
    sample = zoo.SAMPLES["embedding"]
    engine, _ = built(STAGE, make("embedding", ExportOnnx(exporter="torchscript", opset=17)), tmp_path)
    assert engine.engine
    assert str(engine.engine.inputs[0].dtype) == ("int32" if release == "8.6" else "int64")
    feed = {"input": np.full((1, 4), 2**40, np.int64)}
    with open_runner(engine, Device.CUDA) as runner:
        assert runner.infer(sample.feed({"batch": 2, "length": 3}))["output"].shape == (2, 3, 4)
        if release == "8.6":
            with pytest.raises(RunnerError, match="values of int64 do not fit into the engine's int32"):
                runner.infer(feed)


def test_an_output_whose_size_depends_on_values(release: str, tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    y = helper.make_tensor_value_info("y", TensorProto.INT64, [2, "found"])
    graph = helper.make_graph([helper.make_node("NonZero", ["x"], ["y"])], "g", [x], [y])
    path = tmp_path / "nonzero.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    engine, _ = built(STAGE, onnx_file.describe(path, zoo.BATCH), tmp_path / "out")
    with TensorRtRunner(engine, Device.CUDA, cuda_graph=True) as runner:
        for rows in (np.eye(4, dtype=np.float32)[:3], np.zeros((2, 4), np.float32), np.ones((9, 4), np.float32)):
            np.testing.assert_array_equal(runner.infer({"x": rows})["y"], np.array(np.nonzero(rows)))
        with pytest.raises(RunnerError, match="a CUDA graph cannot have an output whose size depends on values: y"):
            runner.own_times({"x": rows}, RULE)


@pytest.mark.parametrize("graph", [False, True])
def test_timing_is_done_in_the_worker_and_split(release: str, graph: bool, linear: Artifact, tmp_path: Path) -> None:
    engine, _ = built(STAGE, linear, tmp_path)
    feed = zoo.SAMPLES["linear"].feed({"batch": 4})
    with TensorRtRunner(engine, Device.CUDA, streams=2, cuda_graph=graph) as runner:
        times = runner.own_times(feed, RULE)
        assert len(times.times_ms) >= 5
        assert all(t > 0 for t in times.times_ms)
        assert times.dropped_calls == 1
        (parts,) = runner.parts(feed)
        assert min(parts.copy_in_ms, parts.compute_ms, parts.copy_out_ms, parts.enqueue_ms) > 0
        assert runner.per_second
        assert runner.per_second > 0
        runner.bind(feed)()
        np.testing.assert_allclose(
            runner.infer(feed)["output"], zoo.SAMPLES["linear"].expected(feed)["output"], atol=1e-5
        )


def test_parity_runs_at_every_corner_of_every_profile_and_the_layers_are_counted(
    release: str, linear: Artifact, tmp_path: Path
) -> None:
    profiles = BuildTensorRt(profiles=({"input": "1x4,2x4,4x4"}, {"input": "8x4,8x4,16x4"})).profiles
    stage = STAGE.model_copy(update={"profiles": profiles, "precision": "fp16"})
    prover = Prover(linear, Samples(linear.inputs, linear.dims, None), Requirements())
    engine = run_stage(stage, linear, tmp_path / "out", prover)
    parity = prover.parity(engine)
    assert parity.passed, parity.failure
    assert {o.sizes["batch"] for o in parity.outputs} == {1, 2, 3, 4, 8, 9, 16}
    assert engine.engine
    shares = {share.precision: share for share in engine.engine.layers}
    assert 0 < shares["fp16"].layers < 1
    assert sum(share.layers for share in shares.values()) == pytest.approx(1)
    assert sum(share.time for share in shares.values()) == pytest.approx(1)
    assert any("of the layers" in note for note in engine.notes)


def test_too_few_layers_in_the_precision_asked_for_is_a_negative_verdict(
    release: str, linear: Artifact, tmp_path: Path, optkit: CommandLine
) -> None:
    common = ("build-engine", linear.path, "--dim", "batch=1:4:16", "--runtime", "tensorrt", "--timing-cache", "none")
    refused = optkit(*common, "-o", tmp_path / "x.plan", "--require", "fp16=0.9")
    assert refused.code == 1
    assert "failed: precision: 0% of the layers compute in fp16; at least 90% is required" in refused.err
    assert not (tmp_path / "x.plan").exists()
    taken = optkit(*common, "-o", tmp_path / "x.plan", "--require", "fp32=0.9")
    assert taken.code == 0, taken.err
    passport = read_passport(tmp_path / "x.plan")
    assert passport
    assert passport.unproven is None
    assert passport.parity
    assert passport.parity.passed
    assert passport.batch_independence
    assert passport.batch_independence.passed
    shown = optkit("inspect", tmp_path / "x.plan")
    assert "here    loads" in shown.out
    assert "layers  100% in fp32" in shown.out


def test_an_engine_of_another_release_or_gpu_is_refused_from_its_passport(
    release: str, linear: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, _ = built(STAGE, linear, tmp_path)
    monkeypatch.setenv("STANDIN_SM", "90")
    forget()
    version = {"8.6": "8.6.0", "10": "10.14.1.48", "11": "11.4.1.5"}[release]
    sentence = f"built by TensorRT {version} for sm_86, this is TensorRT {version} on sm_90: rebuild with --runtime tensorrt on that GPU"
    with pytest.raises(RunnerError, match=sentence), open_runner(engine, Device.CUDA):
        pass
    monkeypatch.setenv("STANDIN_SM", "86")
    monkeypatch.setenv("STANDIN_TENSORRT", "10" if release != "10" else "11")
    forget()
    with (
        pytest.raises(RunnerError, match=f"built by TensorRT {version} for sm_86, this is TensorRT 1"),
        open_runner(engine, Device.CUDA),
    ):
        pass


def test_an_engine_never_runs_on_the_cpu(release: str, linear: Artifact, tmp_path: Path) -> None:
    engine, _ = built(STAGE, linear, tmp_path)
    with (
        pytest.raises(RunnerError, match=r"device 'cpu': an engine needs a GPU\. Use --device cuda"),
        open_runner(engine),
    ):
        pass


def test_an_engine_that_is_not_what_its_passport_says_is_refused(
    release: str, linear: Artifact, tmp_path: Path
) -> None:
    engine, _ = built(STAGE, linear, tmp_path)
    assert engine.engine
    other = engine.engine.model_copy(
        update={"profiles": ({"input": engine.engine.profiles[0]["input"].model_copy(update={"max": (32, 4)})},)}
    )
    with (
        pytest.raises(RunnerError, match="the engine has the profiles"),
        open_runner(engine.model_copy(update={"engine": other}), Device.CUDA),
    ):
        pass


def test_an_engine_that_runs_here_is_packaged_with_its_golden_samples(
    release: str, linear: Artifact, tmp_path: Path
) -> None:
    engine, _ = built(STAGE, linear, tmp_path)
    serving = TritonServing(batching=False)
    (done,) = package_files(
        [Passport(artifact=engine)], tmp_path / "repository", serving, data=None, force=False
    ).packages
    found = read_golden(done.path / "golden/1.npz", Tolerance())
    expected = zoo.SAMPLES["linear"].expected(found.inputs)["output"]
    np.testing.assert_allclose(found.outputs["output"], expected, atol=1e-5)


def test_an_engine_is_not_lost_for_want_of_a_look_into_it(
    release: str, linear: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_INSPECTOR", "broken")
    prover = Prover(linear, Samples(linear.inputs, linear.dims, None), Requirements())
    engine = run_stage(STAGE, linear, tmp_path / "out", prover)
    assert engine.notes[-1].startswith(
        "the precisions of the layers could not be read: model.plan: the inspector's JSON cannot be read"
    )
    assert prover.parity(engine).passed
    required = STAGE.model_copy(update={"require": {"fp32": 0.5}})
    with pytest.raises(
        StageError, match=r"require: the precisions of the layers cannot be read: model.plan: the inspector's JSON"
    ):
        run_stage(required, linear, tmp_path / "asked", prover)
    assert not (tmp_path / "asked" / "model.plan").exists()


FACTS = {
    "runtime": "tensorrt", "version": "8.6.0", "targets": ("sm90",), "gpu": "NVIDIA H200", "driver": "13.0", "typed": False,
    "profiles": (), "inputs": (), "outputs": (), "onnx_sha256": "0", "settings": {},
}  # fmt: skip
UNSEEN = "no layer computes in fp16, although the precision includes it: TensorRT 8.6.0 chooses among the allowed types, and found others"


@pytest.mark.parametrize(
    ("precision", "typed", "seen", "notes"),
    [
        ("fp32", False, {"fp32": 1.0}, []),
        ("fp16", False, {"fp16": 0.9, "fp32": 0.1}, []),
        ("fp16", False, {"fp32": 1.0}, [f"{UNSEEN} faster. --require fp16=0.5 refuses such an engine"]),
        ("fp16", True, {"fp32": 1.0}, ["no layer computes in fp16, although the precision includes it. --require fp16=0.5 refuses such an engine"]),
        ("int8+fp16", True, {"fp16": 1.0}, ["no layer computes in int8, although the precision includes it. --require int8=0.5 refuses such an engine"]),
    ],
)  # fmt: skip
def test_a_precision_that_no_layer_computes_in_is_told(
    precision: str, typed: bool, seen: dict[str, float], notes: list[str]
) -> None:
    layers = tuple(LayerShare(precision=kind, layers=share, time=share) for kind, share in seen.items())
    facts = EngineFacts.model_validate(FACTS | {"precision": precision, "typed": typed, "layers": layers})
    assert layer_notes(facts)[1:] == notes
    assert layer_notes(facts.model_copy(update={"layers": ()})) == [
        "the engine inspector reports no layer types, so the precisions of the layers are not known"
    ]


def test_where_the_inspector_tells_no_type_the_weights_do() -> None:
    """As TensorRT 8.6.0 wrote it on an H200 of an INT8 convolution of dynamic shape, without a context."""
    end = [{"Name": "x", "Dimensions": [-1, 1, 6, 6], "Format/Datatype": "N/A due to dynamic shapes"}]
    layer = {"LayerType": "CaskConvolution", "Inputs": end, "Outputs": end, "Weights": {"Type": "Int8", "Count": 9}}
    assert types_of(layer) == ["int8"]
    assert types_of(layer | {"Weights": {"Type": "Half", "Count": 9}}) == ["fp16"]
    assert types_of(layer | {"Weights": {}}) == []
    static = [{"Name": "y", "Format/Datatype": "Row major linear FP32"}]
    assert types_of(layer | {"Outputs": static}) == ["fp32"]


def test_layers_that_only_move_data_are_not_counted() -> None:
    layers = [
        {"name": "a", "type": "CaskConvolution", "types": ["fp16", "int8"], "ms": 3.0},
        {"name": "b", "type": "Reformat", "types": ["fp32", "int8"], "ms": 5.0},
        {"name": "c", "type": "CaskGemm", "types": ["fp32"], "ms": 1.0},
        {"name": "d", "type": "Shape", "types": [], "ms": 1.0},
    ]
    found = {share.precision: (share.layers, share.time) for share in layer_shares(layers)}
    assert found == {"int8": (0.5, 0.75), "fp32": (0.5, 0.25)}
    assert Precision.INT8
