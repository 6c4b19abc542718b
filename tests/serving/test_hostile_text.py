"""Hostile names through everything that is written for servers: refused where they are read, or only names in what is written."""

import ast
import csv
import json
import re
import shlex
import zipfile
from pathlib import Path
from types import SimpleNamespace

import javaproperties
import numpy as np
import onnx as library
import pytest
import yaml
from google.protobuf import text_format
from onnx import TensorProto, helper
from pydantic import ValidationError
from tritonclient.grpc import model_config_pb2

from optkit import onnx_file
from optkit.artifact import Passport, passport_path
from optkit.artifact.engine import EngineFacts
from optkit.artifact.findings import BatchIndependence, Tolerance
from optkit.artifact.tensors import DimRange, DType, TensorSpec
from optkit.data import Samples
from optkit.data.preprocessing import ImagePreprocessing
from optkit.errors import ArtifactError, RecipeError, RunnerError, StageError
from optkit.loadtest.values import specs_of
from optkit.pytorch.source import copy_onnx_source, open_artifact
from optkit.recipe import load_recipe
from optkit.serving import TorchServeServing, TritonServing, package_torchserve, package_triton
from optkit.serving.clients.folder import ClientRecord, client_folder, write_client
from optkit.serving.clients.generate import ModelClass, identifier
from optkit.serving.golden import Golden, read_golden, write_golden
from optkit.serving.migrate.archive import open_mar
from optkit.serving.migrate.repository import TorchServeBatching, package_handler, plain_model
from optkit.serving.names import name_fault
from optkit.serving.targets import package
from optkit.serving.torchserve import generated_client
from optkit.serving.torchserve.config import config_change
from optkit.serving.torchserve.generated_client import write_torchserve_client
from optkit.serving.torchserve.golden import TorchServeGolden, read_archive_golden
from optkit.serving.torchserve.handler import read_request, top_classes
from optkit.serving.triton.command import serve_command
from optkit.serving.triton.config import Warmup, backend_config, config_text, parse_config, warmup_files
from optkit.serving.triton.contract import TritonContract
from optkit.serving.triton.ensemble.config import _config as ensemble_config
from optkit.serving.triton.ensemble.package import Ensemble, Node
from optkit.serving.triton.generated_client import write_triton_client
from optkit.serving.triton.package_record import TritonRecord
from optkit.serving.triton.python_backend.folder import python_files
from optkit.untrusted.names import LONGEST_NAME, step_name_fault
from tests.support.hostile_texts import CANARY, EVERY, QUOTED, REFUSED, UNUSUAL, shown
from tests.support.seal import sealed

PROVEN = BatchIndependence(dim="batch")
every = pytest.mark.parametrize("text", EVERY, ids=shown)
accepted = pytest.mark.parametrize("text", [*UNUSUAL, *QUOTED], ids=shown)
refused = pytest.mark.parametrize("text", REFUSED, ids=shown)


@pytest.fixture(autouse=True)
def _no_canary(tmp_path, monkeypatch):
    """Work in a folder of one's own, where no text may have made a file when the test ends."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.rglob(f"*{CANARY}*"))


def unchecked(name, dims):
    """Return a tensor as if nothing had held its names to anything, to see what the quoting alone is good for."""
    return TensorSpec.model_construct(name=name, dtype=DType.FLOAT32, shape=tuple(dims))


def write_onnx(path, name="x", output="y", dim="batch", output_dim=None):
    """Write a model that doubles its input, with these names in it."""
    taken = helper.make_tensor_value_info(name, TensorProto.FLOAT, [dim, 4])
    given = helper.make_tensor_value_info(output, TensorProto.FLOAT, [dim, 4] if output_dim is None else [output_dim])
    nodes = [helper.make_node("Add", [name, name], [output] if output_dim is None else ["sum"])]
    if output_dim is not None:
        shape = helper.make_tensor("shape", TensorProto.INT64, [1], [-1])
        nodes += [
            helper.make_node("Constant", [], ["flat"], value=shape),
            helper.make_node("Reshape", ["sum", "flat"], [output]),
        ]
    graph = helper.make_graph(nodes, "graph", [taken], [given])
    library.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def files_of(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


# Where names are read.


def test_there_are_enough_of_them():
    assert len(set(QUOTED) | set(REFUSED)) >= 50
    assert len(UNUSUAL) >= 15


@refused
@pytest.mark.parametrize("where", ["name", "output", "dim", "output_dim"])
def test_an_onnx_file_with_such_a_name_is_refused_by_its_path(tmp_path, where, text):
    if where in ("dim", "output_dim") and not text:
        return  # a dimension without a name is one that varies
    path = write_onnx(tmp_path / "m.onnx", **{where: text})
    with pytest.raises(ArtifactError) as caught:
        open_artifact(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).isprintable()
    assert "expected" in str(caught.value)


@accepted
def test_an_onnx_file_keeps_a_name_that_can_be_printed(tmp_path, text):
    found = open_artifact(write_onnx(tmp_path / "m.onnx", name=text, output=f"{text} out", dim=text))
    assert found.inputs == (TensorSpec(name=text, dtype="float32", shape=(text, 4)),)
    assert found.outputs == (TensorSpec(name=f"{text} out", dtype="float32", shape=(text, 4)),)


@pytest.mark.parametrize("place", [b"xxxx", b"yyyy", b"dddd", b"nnnn"])
def test_an_onnx_file_whose_names_are_no_utf_8_is_refused(tmp_path, place):
    path = write_onnx(tmp_path / "m.onnx", name="xxxx", output="yyyy", dim="dddd")
    model = library.load(str(path))
    model.graph.node[0].name = "nnnn"
    path.write_bytes(model.SerializeToString().replace(place, b"a\xed\xa0\x80"))  # a lone surrogate
    for read in (open_artifact, onnx_file.load):
        with pytest.raises(ArtifactError, match=r"m\.onnx: .* is b'.*', which is not"):
            read(path)


OUTSIDE = (
    "../secret.bin",
    "/etc/passwd",
    "a/../../secret.bin",
    "..\\secret.bin",
    "C:secret.bin",
    "\\\\host\\share",
    "a\nb",
    "",
)


@pytest.mark.parametrize("location", OUTSIDE)
def test_external_data_that_leads_out_of_the_folder_is_refused(tmp_path, location):
    (tmp_path / "secret.bin").write_bytes(b"\0" * 16)
    (tmp_path / "model").mkdir()
    path = write_onnx(tmp_path / "model" / "m.onnx")
    model = library.load(str(path))
    weight = model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=1)
    weight.external_data.add(key="location", value=location)
    library.save(model, str(path))
    before = files_of(tmp_path)
    for read in (onnx_file.facts, open_artifact, lambda path: copy_onnx_source(path, tmp_path / "out", {})):
        with pytest.raises(ArtifactError, match=r"m\.onnx: external data "):
            read(path)
    assert files_of(tmp_path) == before


@refused
def test_a_passport_with_such_a_name_is_refused_by_its_path(tmp_path, text):
    path = write_onnx(tmp_path / "m.onnx")
    Passport(artifact=open_artifact(path)).save()
    content = json.loads(passport_path(path).read_text())
    places = [
        lambda artifact: artifact["inputs"][0].update(name=text),
        lambda artifact: artifact["inputs"][0].update(shape=[text, 4]),
        lambda artifact: artifact["outputs"][0].update(name=text),
        lambda artifact: artifact.update(dims={text: {"min": 1, "opt": 2, "max": 3}}),
        lambda artifact: artifact.update(files=[text]),
    ]
    for change in places:
        changed = json.loads(json.dumps(content))
        change(changed["artifact"])
        passport_path(path).write_text(json.dumps(sealed(changed)))
        with pytest.raises(ArtifactError, match=r"m\.onnx(\.passport\.json: artifact\.|: )") as caught:
            open_artifact(path)
        assert str(caught.value).isprintable()


def test_what_else_of_a_passport_names_files_is_held_to_it(tmp_path):
    path = write_onnx(tmp_path / "m.onnx")
    Passport(artifact=open_artifact(path)).save()
    content = json.loads(passport_path(path).read_text())
    for location in OUTSIDE:
        content["artifact"]["files"] = [location]
        passport_path(path).write_text(json.dumps(sealed(content)))
        with pytest.raises(ArtifactError, match=r"artifact\.files\.0"):
            open_artifact(path)
    engine = {
        "runtime": "tensorrt", "version": "10.14", "targets": ("sm86",), "gpu": None, "driver": None, "precision": "fp32", "typed": True,
        "profiles": (), "inputs": (), "outputs": (), "onnx_sha256": "0", "settings": {},
    }  # fmt: skip
    EngineFacts(**engine)
    for changed in ({"targets": ("sm86/../../x",)}, {"targets": ("",)}, {"runtime": f"x]'; touch {CANARY}; '"}):
        with pytest.raises(ValidationError):
            EngineFacts(**(engine | changed))


def write_recipe(folder, **keys):
    content = {"name": "m", "model": {"source": "m.onnx"}, "steps": [{"stage": "optimize-onnx"}]} | keys
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder / "recipe.yaml"


@refused
def test_a_recipe_with_such_a_name_is_refused(tmp_path, text):
    spec = "float32[batch, 4]"
    part = {"name": "p", "module": "m.py:build", "inputs": {"x": spec}}
    ensemble = {"name": "e", "inputs": {"x": spec}, "outputs": ["y"], "parts": [part], "reference": "m.py:f"}
    for keys in (
        {"inputs": {text: spec}},
        {"outputs": [text]},
        {"dims": {text: "1:2:3"}},
        {"steps": [{"stage": "optimize-onnx", "name": text}]},
        {"name": text},
        {"ensembles": [ensemble | {"outputs": [text]}]},
        {"ensembles": [ensemble | {"parts": [part | {"takes": {"x": text}}]}]},
        {"ensembles": [ensemble | {"parts": [part | {"gives": {text: "y"}}]}]},
        {"ensembles": [ensemble | {"parts": [part | {"output_names": [text]}]}]},
        {"serve": [{"target": "triton", "name": text}]},
    ):
        with pytest.raises(RecipeError, match=r"recipe\.yaml:(\d+: | cannot be read as YAML .*NUL)"):
            load_recipe(write_recipe(tmp_path, **keys))


@pytest.mark.parametrize("text", EVERY, ids=shown)
def test_the_name_of_a_step_is_that_of_a_folder(tmp_path, text):
    """A run replaces that folder."""
    recipe = write_recipe(tmp_path, steps=[{"stage": "optimize-onnx", "name": text}])
    if step_name_fault(text):
        with pytest.raises(RecipeError, match=r"cannot name a step|contains the character NUL"):
            load_recipe(recipe)
        return
    name = load_recipe(recipe).steps[0].step
    assert (tmp_path / "out" / name).resolve().parent == (tmp_path / "out").resolve()
    assert name.isprintable()


@every
def test_the_name_of_a_model_on_a_server_keeps_to_its_grammar(tmp_path, onnx, text):
    good = re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}", text) is not None
    assert (name_fault(text) is None) == good
    if good or not text:
        return
    for write in (
        lambda: package_triton(onnx, tmp_path / "models", TritonServing(), name=text, independence=PROVEN, sample=None),
        lambda: package_torchserve(onnx, tmp_path / "store", TorchServeServing(), name=text),
    ):
        with pytest.raises(StageError, match="cannot be a model name"):
            write()
    for settings in (TritonServing, TorchServeServing):
        with pytest.raises(ValidationError, match="cannot be a model name"):
            settings(name=text)
    assert files_of(tmp_path) == set()


def write_mar(path, name="m", contract=None):
    manifest = {"model": {"modelName": name, "handler": "optkit_handler.py", "serializedFile": "model.onnx"}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        archive.writestr("model.onnx", write_onnx(path.with_suffix(".onnx")).read_bytes())
        archive.writestr("optkit_handler.py", "")
        if contract is not None:
            archive.writestr("contract.json", json.dumps(contract))
    return path


@refused
def test_an_archive_with_such_a_name_is_refused(tmp_path, text):
    tensor = {"name": "x", "dtype": "float32", "shape": ["batch", 4]}
    plain = {"inputs": [tensor], "outputs": [tensor], "dims": {"batch": [1, 8]}, "classes": None, "image": None}
    for i, changed in enumerate(
        ({"inputs": [tensor | {"name": text}]}, {"outputs": [tensor | {"shape": [text]}]}, {"dims": {text: [1, 8]}})
    ):
        mar = open_mar(write_mar(tmp_path / f"{i}.mar", contract=plain | changed), tmp_path / f"opened{i}")
        with pytest.raises(ArtifactError, match=rf"{i}\.mar: contract\.json cannot be read"):
            plain_model(mar, {}, ())
    mar = open_mar(write_mar(tmp_path / "named.mar", name=text or "?"), tmp_path / "opened")
    with pytest.raises(StageError, match="cannot be a model name"):
        package_handler(mar, tmp_path / "models", TorchServeBatching(1, 0, 1), None)
    assert not (tmp_path / "models").exists()


def test_a_contract_of_another_form_is_told_as_one(tmp_path):
    for i, contract in enumerate(({"inputs": 1}, {"inputs": [], "outputs": []}, {"dims": {"b": 1}}, {"dims": [1]})):
        plain = {"inputs": [], "outputs": [], "dims": {}, "classes": None, "image": None}
        mar = open_mar(write_mar(tmp_path / f"{i}.mar", contract=plain | contract), tmp_path / f"opened{i}")
        if i != 1:
            with pytest.raises(ArtifactError, match=r"contract\.json cannot be read"):
                plain_model(mar, {}, ())


@refused
def test_a_server_with_such_a_name_is_told_as_one(text):
    with pytest.raises(RunnerError, match="what the server says of an input: name"):
        specs_of([{"name": text, "datatype": "FP32", "shape": [-1, 4]}])


# The clients.


def triton_client(folder, name, dim, output, model="m"):
    contract = TritonContract(
        (unchecked(name, [dim, 4]),), (unchecked(output, [dim, "free"]), unchecked("second", [output])), 0, (), ()
    )
    ranges = {dim: DimRange(min=1, opt=2, max=3)}
    written, left = write_triton_client(folder / "models", model, contract, ranges, {name: np.zeros((1, 4))})
    assert left is None
    return written


def handler_contract(name, dim, output):
    tensor = {"dtype": "float32", "shape": [dim, dim, 4]}
    return {
        "inputs": [tensor | {"name": name}], "outputs": [tensor | {"name": output}], "dims": {dim: [1, 8]}, "batch": dim, "max_batch": 1,
        "classes": None, "engine": None, "image": None,
    }  # fmt: skip


def torchserve_client(folder, name, dim, output, image=False):
    contract = handler_contract(name, dim, output)
    if image:
        contract |= {
            "image": ImagePreprocessing(resize=8, crop=8, mode="L").model_dump(mode="json"),
            "inputs": [{"name": name, "dtype": "float32", "shape": [dim, 1, 8, 8]}],
        }
    written, left = write_torchserve_client(folder / "store", "m", contract, None)
    assert left is None
    return written


KINDS = {
    "triton": triton_client,
    "torchserve": torchserve_client,
    "torchserve-image": lambda folder, *names: torchserve_client(folder, *names, image=True),
}


def outline(code):
    """Return what code does, whatever its texts say and its parameters are called."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str()):
                node.value = ""
            case ast.ImportFrom():
                node.names.sort(key=lambda alias: alias.name)
            case ast.arg(arg=name) if name != "self":
                node.arg = "name"
            case ast.FunctionDef(name="infer"):
                own = {argument.arg for argument in node.args.args} - {"self"}
                for inner in (inner for statement in node.body for inner in ast.walk(statement)):
                    if isinstance(inner, ast.Name) and inner.id in own:
                        inner.id = "name"
    return ast.dump(tree)


@pytest.mark.parametrize("text", [text for text in EVERY if text], ids=shown)
@pytest.mark.parametrize("kind", KINDS)
def test_a_client_does_the_same_whatever_its_names_are(tmp_path, load, monkeypatch, kind, text):
    """Also with names that are refused when they are read: quoting alone holds."""
    past = SimpleNamespace(model_validate=lambda tensor: unchecked(tensor["name"], tensor["shape"]))
    monkeypatch.setattr(generated_client, "TensorSpec", past)
    plain = KINDS[kind](tmp_path / "plain", "image", "batch", "logits")
    odd = KINDS[kind](tmp_path / "odd", text, text, text)
    for file in ("client.py", "__init__.py"):
        code = (odd / file).read_text(encoding="utf-8")
        compile(code, file, "exec")
        assert outline(code) == outline((plain / file).read_text(encoding="utf-8"))
    client = load(odd).M
    assert (
        client.outputs == (text,) if kind != "triton" else client.outputs[0].name == client.outputs[1].shape[0] == text
    )
    if kind != "torchserve-image":
        assert client.inputs[0].name == text
        assert text in client.inputs[0].shape
        assert list(client.sizes) == [text]
        if "\0" not in text:  # where a zip ends a name
            assert list(client("http://localhost:1").example() if kind == "triton" else sample(odd)) == [text]


def sample(client):
    return json.loads((client / "sample.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("text", [text for text in EVERY if text], ids=shown)
def test_a_model_name_in_a_client_is_text(tmp_path, text):
    """Names of models keep to a grammar; here one comes past it."""
    described = [
        ModelClass(
            module="triton_template", base="TritonModel", model=name, takes="", gives="", fields=(), method=SimpleNamespace(
                parameters="", returns="None", result="nothing", call="None"
            ),
        )
        for name in ("plain model", text)
    ]  # fmt: skip
    for read in (ModelClass.text, ModelClass.init):
        plain, odd = (outline(re.sub(rf"\b{one.name}\b", "NAME", read(one).decode())) for one in described)
        assert odd == plain
    assert described[1].name.isidentifier()
    assert described[1].name not in dir(__builtins__)


def test_names_that_python_keeps_for_itself_are_no_parameters_and_no_classes():
    assert identifier("__debug__") == "__debug___"
    described = ModelClass("triton_template", "TritonModel", "ValueError", "", "", (), SimpleNamespace())
    assert described.name == "ValueErrorModel"  # else the module's own `except ValueError` would mean the model


def test_a_record_of_a_client_deletes_nothing_outside_its_folder(tmp_path):
    from hashlib import sha256

    (tmp_path / "mine.txt").write_text("mine")
    folder = client_folder(tmp_path / "models", "m")
    hashed = sha256(b"mine").hexdigest()
    for name in ("../../mine.txt", str(tmp_path / "mine.txt")):
        folder.mkdir(parents=True, exist_ok=True)
        record = {"schema": ClientRecord.schema_id, "model": "m", "files": {name: hashed}}
        (folder / "optkit.json").write_text(json.dumps(record))
        write_client(folder, "m", {"client.py": b"new"})
        assert (tmp_path / "mine.txt").read_text() == "mine"


# The configurations.


@every
def test_a_config_pbtxt_is_read_back_with_every_name(text):
    spec = unchecked(text, ["batch", 4])
    contract = TritonContract((spec,), (spec,), 8, (), ())
    warmup = Warmup({text: (4,)}, {text: b"\0" * 16})
    made = backend_config("m", "onnxruntime", TritonServing(), contract, warmup, reshape=True)
    found = text_format.Parse(config_text(made), model_config_pb2.ModelConfig())
    assert found == made == parse_config(config_text(made), Path("config.pbtxt"))
    assert (found.input[0].name, found.output[0].name, len(found.input)) == (text, text, 1)
    assert list(found.model_warmup[0].inputs) == [text]
    assert all(re.fullmatch(r"[\w.-]+", file) for file in warmup_files(warmup).values())


def test_no_two_inputs_share_a_file_of_the_warmup():
    for names in (("a b", "input_0"), ("input_1", "/x"), ("x" * 300, "y"), ("a", "b")):
        files = warmup_files(Warmup({}, dict.fromkeys(names, b"")))
        assert len(set(files.values())) == len(names)
        assert all(len(file) <= 100 for file in files.values())


@every
def test_an_ensemble_is_read_back_with_every_name(text):
    spec = unchecked(text, ["batch", 4])
    node = Node("p", (spec,), (spec,), {text: text}, {text: f"{text}2"}, function="f")
    contract = TritonContract((spec,), (spec,), 8, (), ())
    made = ensemble_config(Ensemble("e", (spec,), (spec,), (node,), {}), contract, {"p": contract})
    found = text_format.Parse(config_text(made), model_config_pb2.ModelConfig())
    step = found.ensemble_scheduling.step[0]
    assert (dict(step.input_map), dict(step.output_map)) == ({text: text}, {text: f"{text}2"})
    assert (step.model_name, len(found.ensemble_scheduling.step)) == ("e_p", 1)


@every
def test_a_python_model_gets_its_names_as_data(tmp_path, text):
    (tmp_path / "code.py").write_text("def f(feed): return feed\n")
    spec = unchecked(text, [4])
    files = python_files(f"{tmp_path / 'code.py'}:f", (spec,), (spec,), batched=False)
    settings = json.loads(files["optkit_model.json"])
    assert [settings[end][0]["name"] for end in ("inputs", "outputs")] == [text, text]
    plain = python_files(f"{tmp_path / 'code.py'}:f", (), (), batched=False)
    assert files["model.py"] == plain["model.py"]  # no name is in the code


@every
def test_properties_keep_the_names_of_other_models_as_they_are(tmp_path, text):
    """A line end in a name begins no property of its own, and a backslash stays one."""
    config = tmp_path / "config.properties"
    entry = {"1.0": {"marName": "x.mar"}}
    config.write_bytes(f"models={javaproperties.escape(json.dumps({text: entry}))}\n".encode("iso-8859-1"))
    found = javaproperties.loads(config_change(config, "m", TorchServeServing(), force=True).content)
    assert len(found) == 12
    added = [] if name_fault(text) else [f"{text}.mar"]  # a comma in a name would load another archive
    assert found["load_models"].split(",") == sorted(["m.mar", *added])
    assert json.loads(found["models"])[text] == entry


@every
def test_names_and_classes_of_an_archive_are_read_back(tmp_path, onnx, text):
    names = (text or "empty", "b", "c")
    done = package_torchserve(onnx, tmp_path / "store", TorchServeServing(class_names=names), name="m")
    with zipfile.ZipFile(done.path) as archive:
        assert list(json.loads(archive.read("index_to_name.json")).values()) == list(names)
        assert json.loads(archive.read("MAR-INF/MANIFEST.json"))["model"]["modelName"] == "m"
        assert set(yaml.safe_load(archive.read("model-config.yaml"))) >= {"minWorkers", "batchSize"}
        assert archive.read("optkit_handler.py") == Path(read_request.__code__.co_filename).read_bytes()
        assert sorted(archive.namelist()) == sorted(done.files)
    answer = json.dumps({"classes": top_classes(np.array([3.0, 2.0, 1.0]), names, "logits")})
    assert [found["class"] for found in json.loads(answer)["classes"]] == list(names)


@every
def test_golden_samples_are_read_back_with_every_name(tmp_path, text):
    arrays = {text: np.arange(3.0), "plain": np.zeros(2)}
    if "\0" in text:
        return  # a zip ends a name there, which is one more reason to refuse it
    write_golden(Golden(arrays, arrays, Tolerance()), tmp_path / "golden.npz")
    found = read_golden(tmp_path / "golden.npz", Tolerance())
    assert sorted(found.inputs) == sorted(found.outputs) == sorted(arrays)
    assert np.array_equal(found.inputs[text], arrays[text])
    assert [path.name for path in tmp_path.iterdir()] == ["golden.npz"]


def test_records_beside_packages_name_no_other_files_and_models(tmp_path):
    tolerance = {"atol": 1.0}
    for location in OUTSIDE:
        record = {
            "schema": TritonRecord.schema_id,
            "config": "",
            "golden": {"1": {"file": location, "tolerance": tolerance}},
        }
        (tmp_path / "optkit.json").write_text(json.dumps(sealed(record)))
        with pytest.raises(ArtifactError, match=r"optkit\.json: golden\.1\.file"):
            TritonRecord.read(tmp_path / "optkit.json")
    for name in ("../models", "m?x=1", "a b", "m\r\nHost: x", "m/1"):
        record = {
            "schema": TorchServeGolden.schema_id,
            "model": name,
            "version": "1",
            "tolerance": tolerance,
            "batched": True,
        }
        (tmp_path / "m.golden.json").write_text(json.dumps(record))
        with pytest.raises(ArtifactError, match=r"m\.golden\.json: model: .* cannot be a model name"):
            read_archive_golden(tmp_path / "m.mar")


@every
def test_the_command_of_a_container_mounts_one_folder(tmp_path, text):
    if not text or set(text) & set("\0/") or len(text.encode()) > 200:
        return  # no name of a folder
    words = shlex.split(serve_command(tmp_path / text, on_gpu=True))
    fields = next(csv.reader([words[words.index("--mount") + 1]]))
    assert fields == ["type=bind", f"source={tmp_path / text}", "target=/models", "readonly"]
    assert len(words) == len(shlex.split(serve_command(tmp_path / "plain", on_gpu=True)))


# From a file to a client.


def test_the_names_of_a_file_run_nothing_in_a_client(tmp_path, load):
    """The fault as it was: the name of a dimension of an output, which nobody has to declare, ended the docstring of the client."""
    exploit = f'batch"""\n    open("{CANARY}", "w")\n    """'
    path = write_onnx(tmp_path / "m.onnx", output_dim=exploit)
    with pytest.raises(ArtifactError, match=r"m\.onnx: tensor 'y': shape: dimension: the name .* holds U\+000A"):
        open_artifact(path, {"batch": DimRange(min=1, opt=2, max=4)})
    on_one_line = f'batch"""; open("{CANARY}", "w"); """'
    path = write_onnx(tmp_path / "m.onnx", output_dim=on_one_line)
    artifact = open_artifact(path, {"batch": DimRange(min=1, opt=2, max=4)})
    done = package_triton(
        artifact, tmp_path / "models", TritonServing(batching=False), name="m", independence=None, sample=None
    )
    assert load(done.client).M.outputs[0].shape == (on_one_line,)


@accepted
@pytest.mark.parametrize("target", ["triton", "torchserve"])
def test_a_file_with_odd_names_is_packaged_whole(tmp_path, load, target, text):
    output = f"{text} out"
    path = write_onnx(tmp_path / "m.onnx", name=text, output=output, dim=text)
    artifact = open_artifact(path, {text: DimRange(min=1, opt=2, max=4)})
    serving = {"triton": TritonServing(), "torchserve": TorchServeServing()}[target]
    done = package(
        Passport(artifact=artifact, batch_independence=BatchIndependence(dim=text)), tmp_path / "served", serving, name="m",
        samples=Samples(artifact.inputs, artifact.dims), force=False,
    )  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", "served", "served_clients"}
    client = load(done.client).M
    assert client.inputs[0].name == text
    if target == "triton":
        config = parse_config((done.path / "config.pbtxt").read_text(), done.path)
        assert (config.input[0].name, config.output[0].name) == (text, output)
        golden = read_golden(done.path / "golden" / "1.npz", Tolerance())
        assert (list(golden.inputs), list(golden.outputs)) == ([text], [output])
        assert list(client("http://localhost:1").example()) == [text]
    else:
        with zipfile.ZipFile(done.path) as archive:
            contract = json.loads(archive.read("contract.json"))
        body = json.dumps(sample(done.client)).encode()
        assert list(read_request({"body": body}, contract)) == [text]
        assert client("http://localhost:1").body(sample(done.client))


def test_a_name_may_be_long_but_not_endless(tmp_path, load):
    name = "n" * LONGEST_NAME
    artifact = open_artifact(write_onnx(tmp_path / "m.onnx", name=name), {"batch": DimRange(min=1, opt=2, max=4)})
    done = package(
        Passport(artifact=artifact, batch_independence=PROVEN), tmp_path / "served", TritonServing(), name="m",
        samples=Samples(artifact.inputs, artifact.dims), force=False,
    )  # fmt: skip
    assert load(done.client).M.inputs[0].name == name
