"""Engines in a Triton repository; their passports are written by hand, because building them needs a GPU."""

from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as schema

from optkit.api.package import package_files
from optkit.artifact import Artifact, Format, Passport, Precision
from optkit.artifact.engine import EngineFacts, default_profile, hull, profile_dims
from optkit.artifact.findings import BatchIndependence, Tolerance
from optkit.artifact.tensors import DimRange, TensorSpec
from optkit.errors import StageError
from optkit.hashing import sha256_of
from optkit.serving import TorchServeServing, TritonServing, package_torchserve, package_triton
from optkit.serving.golden import Golden, read_golden
from optkit.serving.triton.lint import lint

PROVEN = BatchIndependence(dim="batch")
INPUT, OUTPUT = TensorSpec.parse("ids:int64[batch,8]"), TensorSpec.parse("logits:float32[batch,2]")


def plan(folder: Path, target: str = "sm86", profiles: int = 1, **changed: object) -> Artifact:
    """Write an engine that was built for one GPU, with profiles up to 16, 32, ... samples."""
    path = folder / f"{target}.plan"
    path.write_bytes(target.encode())
    shapes = tuple(default_profile((INPUT,), {"batch": DimRange(min=1, opt=4, max=16 << i)}) for i in range(profiles))
    facts = {
        "runtime": "tensorrt", "version": "10.14.1.48", "targets": (target,), "gpu": "A10", "driver": "13.0", "precision": "fp32",
        "typed": True, "profiles": shapes, "inputs": (INPUT,), "outputs": (OUTPUT,), "onnx_sha256": "0", "settings": {},
    }  # fmt: skip
    return Artifact(
        path=path,
        format=Format.TENSORRT,
        precision=Precision.FP32,
        inputs=(INPUT,),
        outputs=(OUTPUT,),
        dims=hull([profile_dims((INPUT,), profile) for profile in shapes]),
        sha256=sha256_of(path),
        engine=EngineFacts.model_validate(facts | changed),
    )


def package(first: Artifact, repository: Path, *others: Artifact, **fields: object) -> schema.ModelConfig:
    done = package_triton(
        first, repository, TritonServing(**fields), name="ranker", independence=PROVEN, sample=None, others=others
    )
    assert "--gpus all" in done.command
    return text_format.Parse((done.path / "config.pbtxt").read_text(), schema.ModelConfig())


def test_dims_and_batch_come_from_the_profile(tmp_path: Path) -> None:
    found = package(plan(tmp_path), tmp_path / "repository")
    assert (found.platform, found.backend) == ("tensorrt_plan", "tensorrt")
    assert found.max_batch_size == 16
    assert [(i.name, i.data_type, list(i.dims)) for i in found.input] == [("ids", schema.TYPE_INT64, [8])]
    assert [(o.name, o.data_type, list(o.dims)) for o in found.output] == [("logits", schema.TYPE_FP32, [2])]
    assert [(g.kind, list(g.profile)) for g in found.instance_group] == [(schema.ModelInstanceGroup.KIND_GPU, [])]
    assert (tmp_path / "repository/ranker/1/model.plan").read_bytes() == b"sm86"
    assert not found.cc_model_filenames


def test_a_batch_above_the_profile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="max_batch_size is 32; expected at most 16, the declared maximum"):
        package(plan(tmp_path), tmp_path / "repository", max_batch_size=32)
    assert not (tmp_path / "repository").exists()


def test_several_profiles_are_all_named(tmp_path: Path) -> None:
    found = package(plan(tmp_path, profiles=2), tmp_path / "repository")
    assert found.max_batch_size == 32
    assert list(found.instance_group[0].profile) == ["0", "1"]


def test_each_gpu_of_a_server_gets_its_own_engine(tmp_path: Path) -> None:
    found = package(plan(tmp_path, "sm86"), tmp_path / "repository", plan(tmp_path, "sm89"), plan(tmp_path, "sm120"))
    assert dict(found.cc_model_filenames) == {
        "8.6": "model_sm86.plan",
        "8.9": "model_sm89.plan",
        "12.0": "model_sm120.plan",
    }
    version = tmp_path / "repository/ranker/1"
    assert {file.name: file.read_bytes() for file in version.iterdir()} == {
        f"model_{target}.plan": target.encode() for target in ("sm86", "sm89", "sm120")
    }


def test_two_engines_for_one_gpu_or_of_two_contracts_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(StageError, match=r"sm86\.plan: sm86\.plan is for sm_86 too; expected one engine for each GPU"):
        package(plan(tmp_path), tmp_path / "repository", plan(other))
    with pytest.raises(StageError, match="its inputs, outputs or profiles differ"):
        package(plan(tmp_path), tmp_path / "repository", plan(tmp_path, "sm89", profiles=2))


def test_the_types_are_those_of_the_engine(tmp_path: Path) -> None:
    """8.6 takes INT32 where the model takes INT64, and Triton must know it."""
    narrow = TensorSpec.parse("ids:int32[batch,8]")
    found = package(plan(tmp_path, inputs=(narrow,)), tmp_path / "repository")
    assert found.input[0].data_type == schema.TYPE_INT32


def test_golden_samples_are_of_the_types_that_the_server_takes(tmp_path: Path) -> None:
    engine = plan(tmp_path, inputs=(TensorSpec.parse("ids:int32[batch,8]"),))
    golden = Golden({"ids": np.ones((2, 8), np.int64)}, {"logits": np.ones((2, 2), np.float32)}, Tolerance(atol=1e-5))
    package_triton(
        engine, tmp_path / "repository", TritonServing(), name="ranker", independence=PROVEN, sample=None, golden=golden
    )
    found = read_golden(tmp_path / "repository/ranker/golden/1.npz", golden.tolerance)
    assert found.inputs["ids"].dtype == np.int32


def test_an_engine_that_does_not_run_here_is_packaged_without_golden_samples(tmp_path: Path) -> None:
    serving = TritonServing(batching=False, warmup=False)
    engine = Passport(artifact=plan(tmp_path))
    (done,) = package_files([engine], tmp_path / "repository", serving, data=None, force=False).packages
    assert "no golden samples for optkit smoke, because the engine cannot run on this machine" in done.notes
    assert not (done.path / "golden").exists()


@pytest.mark.parametrize("targets", [("sm86",), ("sm86", "sm89", "sm120")])
def test_the_lint_knows_what_was_packaged(targets: tuple[str, ...], tmp_path: Path) -> None:
    first, *others = (plan(tmp_path, target) for target in targets)
    repository = tmp_path / "repository"
    package(first, repository, *others)
    assert lint(repository).findings == ()
    for file in (repository / "ranker/1").iterdir():
        kept = file.read_bytes()
        file.unlink()
        (repository / "ranker/1/other.plan").write_bytes(kept)
        (found,) = lint(repository).findings
        assert (found.rule, found.message.partition(";")[0]) == ("T113", f"version 1 does not contain {file.name}")
        (repository / "ranker/1/other.plan").rename(file)


def test_what_the_server_cannot_load_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        StageError,
        match=r"is an engine of TensorRT-RTX; Triton's backend loads only engines of TensorRT\. Build it with",
    ):
        package(plan(tmp_path, runtime="tensorrt-rtx"), tmp_path / "repository")
    with pytest.raises(StageError, match="is tensorrt; expected onnx and torchscript for TorchServe"):
        package_torchserve(plan(tmp_path), tmp_path / "store", TorchServeServing(), name="ranker", independence=PROVEN)
