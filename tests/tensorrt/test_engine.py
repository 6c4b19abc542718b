"""Profiles, and whether an engine would load elsewhere."""

import re

import pytest

from optkit.artifact.engine import (
    EngineFacts,
    ShapeRange,
    default_profile,
    hull,
    load_refusal,
    profile_dims,
    profiles_faults,
)
from optkit.artifact.platforms import compute_capability, platforms
from optkit.artifact.tensors import DimRange, TensorSpec

INPUTS = (TensorSpec.parse("ids:int64[batch,length]"), TensorSpec.parse("mask:int64[batch,length]"))


def facts(**changed: object) -> EngineFacts:
    usual = {
        "runtime": "tensorrt", "version": "10.14.1.48", "targets": ("sm86",), "gpu": "A10", "driver": "13.0", "precision": "fp32",
        "typed": True, "profiles": (), "inputs": INPUTS, "outputs": (), "onnx_sha256": "0", "settings": {},
    }  # fmt: skip
    return EngineFacts.model_validate(usual | changed)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a range of shapes; expected min,opt,max, as in 1x3x224x224"),
        ("1x4,2x4", "is not a range of shapes"),
        ("1x-1,2x4,3x4", "is not a range of shapes"),
        ("1x4,2x4x4,3x4", "min, opt and max have different ranks"),
        ("4x4,2x4,8x4", re.escape("axis 0 has 4, 2, 8; expected 1 <= min <= opt <= max")),
        ("0x4,2x4,8x4", "axis 0 has 0, 2, 8"),
    ],
)
def test_a_range_of_shapes_follows_its_grammar(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShapeRange.parse(text)


def test_one_shape_alone_is_all_three() -> None:
    assert ShapeRange.parse("8x4") == ShapeRange(min=(8, 4), opt=(8, 4), max=(8, 4))
    assert str(ShapeRange.parse("1x4,2x4,8x4")) == "1x4,2x4,8x4"


def test_the_declared_ranges_are_a_profile_and_come_back_from_it() -> None:
    dims = {"batch": DimRange(min=1, opt=8, max=32), "length": DimRange(min=8, opt=64, max=256)}
    profile = default_profile(INPUTS, dims)
    assert str(profile["ids"]) == "1x8,8x64,32x256"
    assert profile_dims(INPUTS, profile) == dims
    assert profiles_faults(INPUTS, [profile]) == []
    assert default_profile((TensorSpec.parse("x:float32[2,2]"),), {}) == {}


def test_inputs_that_share_a_dimension_must_agree_on_it() -> None:
    profile = {"ids": ShapeRange.parse("1x8,2x8,4x8"), "mask": ShapeRange.parse("1x8,2x8,8x8")}
    assert profiles_faults(INPUTS, [profile]) == [
        "profile 0: input 'mask': 1x8,2x8,8x8 has (1, 2, 8) for 'batch'; another input has (1, 2, 4)"
    ]


def test_the_hull_holds_every_profile() -> None:
    low, high = {"n": DimRange(min=1, opt=2, max=4)}, {"n": DimRange(min=3, opt=8, max=16)}
    assert hull([low, high]) == {"n": DimRange(min=1, opt=2, max=16)}
    assert hull([]) == {}


LOADS = {
    "same": (facts(), "tensorrt", "10.14.1.48", "sm86", True),
    "another build of it": (facts(), "tensorrt", "10.14.1", "sm86", True),
    "another patch": (facts(), "tensorrt", "10.14.2", "sm86", False),
    "later": (facts(), "tensorrt", "10.15.0", "sm86", False),
    "later, version-compatible": (facts(version_compatible=True), "tensorrt", "10.15.0", "sm86", True),
    "earlier, version-compatible": (facts(version_compatible=True), "tensorrt", "10.13.0", "sm86", False),
    "11 of 10, version-compatible": (facts(version_compatible=True), "tensorrt", "11.4.1", "sm86", True),
    "10 of 8, version-compatible": (facts(version="8.6.1", version_compatible=True), "tensorrt", "10.0.1", "sm86", False),
    "another GPU": (facts(), "tensorrt", "10.14.1.48", "sm89", False),
    "another GPU, hardware-compatible": (facts(hardware_compatible="ampere-plus"), "tensorrt", "10.14.1.48", "sm90", True),
    "an older GPU, hardware-compatible": (facts(hardware_compatible="ampere-plus"), "tensorrt", "10.14.1.48", "sm75", False),
    "same capability only": (facts(hardware_compatible="same-compute-capability"), "tensorrt", "10.14.1.48", "sm89", False),
    "another runtime": (facts(), "tensorrt-rtx", "1.7.1", "sm86", False),
    "rtx": (facts(runtime="tensorrt-rtx", version="1.7.1.116", targets=("sm86", "sm89")), "tensorrt-rtx", "1.7.1.116", "sm89", True),
    "rtx, hopper": (facts(runtime="tensorrt-rtx", version="1.7.1.116", targets=("sm86",)), "tensorrt-rtx", "1.7.1.116", "sm90", False),
}  # fmt: skip


@pytest.mark.parametrize("case", LOADS)
def test_where_an_engine_loads(case: str) -> None:
    engine, runtime, version, target, loads = LOADS[case]
    assert (load_refusal(engine, runtime, version, target) is None) == loads


def test_the_refusal_is_one_sentence() -> None:
    assert load_refusal(facts(), "tensorrt", "11.4.1", "sm90") == (
        "built by TensorRT 10.14.1.48 for sm_86, this is TensorRT 11.4.1 on sm_90: rebuild with --runtime tensorrt on that GPU"
    )


def test_tensorrt_rtx_is_not_advised_where_it_does_not_run() -> None:
    rtx = facts(runtime="tensorrt-rtx", version="1.7.1.116", targets=("sm86",))
    assert load_refusal(rtx, "tensorrt-rtx", "1.7.1.116", "sm90") == (
        "built by TensorRT-RTX 1.7.1.116, and TensorRT-RTX does not run on sm_90, only on sm_75, sm_80, sm_86, sm_89, sm_120, sm_121 and "
        "later: rebuild with --runtime tensorrt on that GPU"
    )
    refusal = load_refusal(rtx, "tensorrt-rtx", "1.7.1.116", "sm89")
    assert refusal
    assert refusal.endswith("rebuild with --runtime tensorrt-rtx --gpu sm89")


def test_what_tensorrt_rtx_runs_on_is_what_its_bindings_name() -> None:
    trt = pytest.importorskip("tensorrt_rtx_bindings")
    named = {name.lower() for name in dir(trt.ComputeCapability) if name.startswith("SM")}
    assert set(platforms().tensorrt_rtx) == named


@pytest.mark.parametrize(
    ("name", "target"),
    [("sm86", "sm86"), ("86", "sm86"), ("SM_120", "sm120"), ("T4", "sm75"), ("NVIDIA A100", "sm80"), ("Tesla T4", "sm75"),
     ("a10", "sm86"), ("L4", "sm89"), ("GeForce RTX 4090", "sm89"), ("rtx4090", "sm89"), ("H100", "sm90"),
     ("RTX 5070 Ti", "sm120"), ("RTX 3080 Ti", "sm86"), ("B200", "sm100"), ("DGX Spark", "sm121"), ("Jetson T5000", "sm110")],
)  # fmt: skip
def test_a_gpu_by_its_name(name: str, target: str) -> None:
    assert compute_capability(name) == target


def test_an_unknown_gpu_is_told_with_those_known() -> None:
    with pytest.raises(ValueError, match=r"'Voodoo 2' is not a known GPU; .* T4, .* A100"):
        compute_capability("Voodoo 2")


def test_the_data_file_names_its_sources_and_no_gpu_twice() -> None:
    known = platforms()
    names = [name for group in known.gpus.values() for name in group]
    assert len(set(names)) == len(names)
    assert set(known.sources) >= {"gpus", "triton"}
    assert all(url.startswith("https://") for key, url in known.sources.items() if key in ("gpus", "triton"))
    assert all(re.fullmatch(r"\d\d\.\d\d", release) for release in known.triton)
