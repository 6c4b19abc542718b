"""External data stays in the model's folder: every reader refuses a file that names other data, and touches nothing outside."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from optkit import onnx_file
from optkit.artifact.tensors import DimRange
from optkit.errors import ArtifactError
from optkit.hashing import sha256_of
from optkit.pytorch.source import copy_onnx_source, open_artifact, source_sha256
from optkit.runners import open_runner
from optkit.stages import ConvertFp16
from tests.support import hostile
from tests.support.hostile import CANARY, EXTENTS, LOCATIONS, WEIGHT, Location, within

DIMS = {"batch": DimRange(min=1, opt=2, max=4)}
READERS: dict[str, Callable[[Path], object]] = {
    "facts": onnx_file.facts,
    "has_half": onnx_file.has_half,
    "describe": lambda path: onnx_file.describe(path, DIMS),
    "load": onnx_file.load,
    "load-without-weights": lambda path: onnx_file.load(path, weights=False),
    "load_lazily": onnx_file.load_lazily,
    "load_graph": onnx_file.load_graph,
    "check": onnx_file.check,
    "gather": onnx_file.gather,
    "keep_inputs": lambda path: onnx_file.keep_inputs(path, ()),
    "has_fp16_weights": onnx_file.has_fp16_weights,
    "has_float_weights_behind_qdq": onnx_file.has_float_weights_behind_qdq,
    "open_artifact": open_artifact,
    "source_sha256": lambda path: source_sha256(str(path)),
    "copy_onnx_source": lambda path: copy_onnx_source(path, path.parent / "out", DIMS),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("location", LOCATIONS, ids=lambda location: location.name)
def test_a_location_outside_is_refused_by_every_reader(location: Location, reader: str, tmp_path: Path) -> None:
    path = location.write(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with within(), pytest.raises(ArtifactError, match=rf"model\.onnx: external data .*{location.says}"):
        READERS[reader](path)
    assert (tmp_path / "canary.bin").read_bytes() == CANARY
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("reader", READERS)
def test_a_location_that_is_not_utf8_is_refused(reader: str, tmp_path: Path) -> None:
    path = hostile.write(tmp_path / "model.onnx", {"location": "weightsXX.bin"})
    path.write_bytes(path.read_bytes().replace(b"XX", b"\xff\xfe"))
    (tmp_path / os.fsdecode(b"weights\xff\xfe.bin")).write_bytes(WEIGHT.tobytes())
    with pytest.raises(
        ArtifactError, match=r"StringStringEntryProto\.value is b'weights\\xff\\xfe\.bin', which is not"
    ):
        READERS[reader](path)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(("entries", "says"), EXTENTS)
def test_a_part_of_a_file_that_is_not_there_is_refused(
    entries: dict[str, str], says: str, reader: str, tmp_path: Path
) -> None:
    path = hostile.write(tmp_path / "model.onnx", {"location": "w.bin", **entries})
    (tmp_path / "w.bin").write_bytes(WEIGHT.tobytes() * 2)
    with within(), pytest.raises(ArtifactError, match=rf"external data 'w\.bin' of tensor 'weight': {says}"):
        READERS[reader](path)


def inside_out(path: Path, place: str) -> Path:
    """Write a model that names external data outside at a place where nothing at hand looks."""
    outside = hostile.model({"location": "../canary.bin"}).graph.initializer[0]
    model = hostile.around(numpy_helper.from_array(WEIGHT, "weight"))
    constant = helper.make_node("Constant", [], ["unread"], value=outside)
    if place == "constant":
        model.graph.node.append(constant)
    elif place == "branch":
        out = [helper.make_tensor_value_info("unread", TensorProto.FLOAT, [2, 256])]
        branch = helper.make_graph([constant], "branch", [], out)
        model.graph.node.append(
            helper.make_node("If", ["flag"], ["picked"], then_branch=branch, else_branch=branch),
        )
    elif place == "function":
        opset = [helper.make_opsetid("", 17)]
        model.functions.append(helper.make_function("own", "f", [], ["unread"], [constant], opset))
    elif place == "sparse":
        model.graph.sparse_initializer.add(dims=[2, 256]).values.CopyFrom(outside)
    else:
        model.training_info.add().initialization.initializer.append(outside)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("place", ["constant", "branch", "function", "sparse", "training"])
@pytest.mark.parametrize("reader", READERS)
def test_tensors_are_looked_at_wherever_they_lie(reader: str, place: str, tmp_path: Path) -> None:
    (tmp_path / "canary.bin").write_bytes(CANARY)
    path = inside_out(tmp_path / "in" / "model.onnx", place)
    with pytest.raises(ArtifactError, match=r"external data '\.\./canary\.bin' leads out of its folder"):
        READERS[reader](path)


def test_the_second_of_two_locations_is_looked_at_too(tmp_path: Path) -> None:
    model = hostile.model({"location": "w.bin"})
    model.graph.initializer[0].external_data.add(key="location", value="../canary.bin")
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "w.bin").write_bytes(WEIGHT.tobytes())
    with pytest.raises(ArtifactError, match=r"external data '\.\./canary\.bin' leads out"):
        onnx_file.facts(tmp_path / "model.onnx")


def test_values_beside_a_location_are_not_written_to_it(tmp_path: Path) -> None:
    model = hostile.model({"location": "w.bin"})
    model.graph.initializer[0].raw_data = b"x" * 2048
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    (tmp_path / "w.bin").write_bytes(WEIGHT.tobytes())
    onnx_file.keep_inputs(path, ())
    assert (tmp_path / "w.bin").read_bytes() == WEIGHT.tobytes()
    out = tmp_path / "out" / "model.onnx"
    out.parent.mkdir()
    onnx_file.save(onnx_file.load(path, weights=False), out)
    assert [file.name for file in out.parent.iterdir()] == ["model.onnx"]


def test_a_key_that_onnx_does_not_know_is_left_alone(tmp_path: Path) -> None:
    path = hostile.write(tmp_path / "model.onnx", {"location": "w.bin", "prepacked_0": "x"})
    (tmp_path / "w.bin").write_bytes(WEIGHT.tobytes())
    for reader in ("facts", "load", "load_lazily", "load_graph"):
        READERS[reader](path)


@pytest.mark.parametrize(
    "location", ["w.bin", "./w.bin", "weights/x.bin", "weights//deep/./x.bin", "onnx::MatMul_1", "wä.bin"]
)
def test_data_in_the_folder_or_below_it_is_read(location: str, tmp_path: Path) -> None:
    path = hostile.write(tmp_path / "in" / "model.onnx", {"location": location, "offset": "16", "length": "2048"})
    data = path.parent / location
    data.parent.mkdir(parents=True, exist_ok=True)
    data.write_bytes(b"\1" * 16 + WEIGHT.tobytes())

    artifact = onnx_file.describe(path, DIMS)
    name = str(Path(location))
    assert artifact.files == (name,)
    assert artifact.sha256 == sha256_of(path, data)
    onnx_file.check(path)
    assert not onnx_file.has_half(path)
    for loaded in (onnx_file.load(path), onnx.load(path)):
        assert np.array_equal(numpy_helper.to_array(loaded.graph.initializer[0]), WEIGHT)
    lazy = onnx_file.load_lazily(path)
    assert np.array_equal(lazy.graph.initializers["weight"].const_value.numpy(), WEIGHT)
    onnx_file.release(lazy)

    copied = copy_onnx_source(path, tmp_path / "run" / "source", DIMS)
    assert copied.is_intact()
    assert (tmp_path / "run" / "source" / name).read_bytes() == data.read_bytes()
    feed = {"x": np.zeros((2, 2, 256), np.float32)}
    with open_runner(copied) as runner:
        assert np.array_equal(runner.infer(feed)["y"][0], WEIGHT)
    assert ConvertFp16().run(copied, tmp_path / "made").is_intact()

    onnx_file.gather(path)
    assert onnx_file.facts(path).files == ()
    assert not data.exists()


def test_a_model_that_is_itself_a_link_is_read_and_its_linked_data_is_not(tmp_path: Path) -> None:
    """As in a cache of Hugging Face: what the user names is a link to ../../blobs, and so is the data beside it."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    hostile.write(blobs / "1f", {"location": "model.onnx_data"})
    (blobs / "2e").write_bytes(WEIGHT.tobytes())
    snapshot.mkdir(parents=True)
    for name, blob in (("model.onnx", "1f"), ("model.onnx_data", "2e")):
        (snapshot / name).symlink_to(f"../../blobs/{blob}")
    with pytest.raises(ArtifactError, match=r"'model\.onnx_data' is a link; .*Copy the folder with its links followed"):
        open_artifact(snapshot / "model.onnx")
    shutil.copytree(snapshot, tmp_path / "copy")  # follows links
    assert open_artifact(tmp_path / "copy" / "model.onnx").files == ("model.onnx_data",)

    small = snapshot / "small.onnx"
    (blobs / "3d").write_bytes(hostile.around(numpy_helper.from_array(WEIGHT, "weight")).SerializeToString())
    small.symlink_to("../../blobs/3d")
    assert open_artifact(small).files == ()
