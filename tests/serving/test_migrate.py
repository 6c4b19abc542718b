"""From archives to model repositories: what is written and refused, and the same answers from both real servers."""

import importlib.util
import json
import os
import shutil
import stat
import tarfile
import zipfile

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as schema

from optkit.api.migrate import migrate
from optkit.artifact.findings import BatchIndependence
from optkit.artifact.tensors import DimRange, TensorSpec
from optkit.data.preprocessing import ImagePreprocessing
from optkit.errors import ArtifactError, OutputError, StageError
from optkit.serving import TorchServeServing, package_torchserve
from optkit.serving.torchserve.server import serving
from optkit.serving.triton.lint import lint
from optkit.serving.triton.server import TritonServer, find_triton
from tests.support import archives
from tests.support.hostile import CANARY, WEIGHT, within
from tests.support.hostile import model as hostile_model
from tests.support.needs import need


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    return archives.make_all(tmp_path_factory.mktemp("archives"))


def config(folder):
    return text_format.Parse((folder / "config.pbtxt").read_text(), schema.ModelConfig())


def optkit_archive(artifact, store, **fields):
    proven = BatchIndependence(dim="batch")
    return package_torchserve(artifact, store, TorchServeServing(**fields), name="digits", independence=proven).path


# What becomes a plain model.


@pytest.mark.parametrize(("kind", "platform"), [("onnx", "onnxruntime_onnx"), ("torchscript", "pytorch_libtorch")])
def test_an_archive_of_ours_becomes_a_plain_model_with_its_batching(request, tmp_path, kind, platform):
    artifact = request.getfixturevalue(kind)
    archive = optkit_archive(artifact, tmp_path / "store", batch_size=8, max_batch_delay_ms=20, workers=2)
    [packaged] = migrate(archive, tmp_path / "repository").packages
    written = config(packaged.path)
    assert (written.platform, written.max_batch_size) == (platform, 8)
    assert list(written.dynamic_batching.preferred_batch_size) == [8]
    assert written.dynamic_batching.max_queue_delay_microseconds == 20_000
    assert written.instance_group[0].count == 2
    assert (packaged.path / "1" / artifact.path.name).read_bytes() == artifact.path.read_bytes()
    assert "clients now send the tensors directly" in packaged.notes[-1]


def test_without_batching_there_is_none(torchscript, tmp_path):
    archive = optkit_archive(torchscript, tmp_path / "store", batch_size=8)
    [packaged] = migrate(archive, tmp_path / "repository", batching=False).packages
    assert config(packaged.path).max_batch_size == 0


@pytest.mark.parametrize("fields", [{"class_names": ("a", "b", "c")}, {"image": ImagePreprocessing(resize=(4, 4))}])
def test_a_handler_that_does_more_is_kept(zoo, tmp_path, fields):
    pictures = zoo.torchscript(zoo.source("pictures", ["image:float32[batch,3,4,4]"], batch="1:2:8"))
    [packaged] = migrate(optkit_archive(pictures, tmp_path / "store", **fields), tmp_path / "repository").packages
    assert config(packaged.path).backend == "python"
    assert "1/mar/optkit_handler.py" in packaged.files


def test_the_base_handler_over_onnx(onnx, tmp_path):
    members = {"model.onnx": onnx.path.read_bytes()}
    archive = archives.write(tmp_path / "m.mar", {"serializedFile": "model.onnx", "handler": "base_handler"}, members)
    dims = {"batch": DimRange(min=1, opt=4, max=16)}
    [packaged] = migrate(archive, tmp_path / "repository", dims=dims).packages
    assert config(packaged.path).platform == "onnxruntime_onnx"


def test_the_external_data_of_a_model_goes_with_it(tmp_path):
    members = external_archive("weights.bin")
    for handler in ("base_handler", "optkit_handler.py"):
        archive = archives.write(tmp_path / "m.mar", {"serializedFile": "model.onnx", "handler": handler}, members)
        dims = {"batch": DimRange(min=1, opt=2, max=4)}
        [packaged] = migrate(archive, tmp_path / handler, dims=dims).packages
        assert "1/model.onnx/weights.bin" in packaged.files


@pytest.mark.parametrize("handler", ["base_handler", "optkit_handler.py"])
def test_external_data_outside_the_archive_is_refused(tmp_path, handler):
    (tmp_path / "canary.bin").write_bytes(CANARY)
    for location in (str(tmp_path / "canary.bin"), "../canary.bin", "/dev/zero"):
        members = external_archive(location)
        archive = archives.write(tmp_path / "m.mar", {"serializedFile": "model.onnx", "handler": handler}, members)
        with pytest.raises(ArtifactError, match=r"model\.onnx: external data '.* (leads out|is an absolute path)"):
            migrate(archive, tmp_path / "repository", dims={"batch": DimRange(min=1, opt=2, max=4)})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["canary.bin", "m.mar"]


def test_that_the_archives_code_is_loaded_is_said_before_it_is(torchscript, tmp_path, caplog, monkeypatch):
    archive = archives.write(
        tmp_path / "m.mar",
        {"serializedFile": "model.pt", "handler": "base_handler"},
        {"model.pt": torchscript.path.read_bytes()},
    )
    loaded = []
    monkeypatch.setattr("torch.jit.load", lambda *_, **__: loaded.append(len(caplog.records)) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        migrate(archive, tmp_path / "repository", inputs=torchscript.inputs, dims=torchscript.dims)
    assert loaded == [1]
    assert caplog.messages[0].startswith("m.mar: model.pt is TorchScript, which is code: it is loaded and run now.")


def external_archive(location):
    """Return the members of an archive whose model has its weight at a location; its contract is as optkit writes it."""
    specs = [{"name": name, "dtype": "float32", "shape": ["batch", 2, 256]} for name in ("x", "y")]
    contract = {"inputs": specs[:1], "outputs": specs[1:], "dims": {"batch": [1, 4]}, "classes": None, "image": None}
    return {
        "model.onnx": hostile_model({"location": location}).SerializeToString(),
        "weights.bin": WEIGHT.tobytes(),
        "contract.json": json.dumps(contract),
        "optkit_handler.py": "",
    }


@pytest.mark.parametrize(
    "damage",
    [{"dims": [1]}, {"dims": {"batch": [4, 1]}}, {"inputs": [{"name": 1}]}, {"inputs": 3}, {"outputs": None}, {"classes": 0, "image": 0, "dims": {"b": 1}}],
)  # fmt: skip
def test_a_contract_that_optkit_did_not_write_is_refused(tmp_path, damage):
    members = external_archive("weights.bin")
    members["contract.json"] = json.dumps(json.loads(members["contract.json"]) | damage)
    entry = {"serializedFile": "model.onnx", "handler": "optkit_handler.py"}
    with pytest.raises(ArtifactError, match=r"contract\.json cannot be read \("):
        migrate(archives.write(tmp_path / "m.mar", entry, members), tmp_path / "repository")


def test_an_archive_that_is_a_fifo_is_refused(tmp_path):
    os.mkfifo(tmp_path / "m.mar")
    with (
        within(),
        pytest.raises(ArtifactError, match=r"m\.mar: is a FIFO, a socket or a device; expected a TorchServe"),
    ):
        migrate(tmp_path / "m.mar", tmp_path / "repository")


def test_the_base_handler_over_torchscript_needs_to_be_told_the_inputs(torchscript, tmp_path):
    members = {"model.pt": torchscript.path.read_bytes()}
    archive = archives.write(tmp_path / "m.mar", {"serializedFile": "model.pt", "handler": "base_handler"}, members)
    with pytest.raises(StageError, match=r"neither states the model's inputs; expected input specs\. Add --input"):
        migrate(archive, tmp_path / "repository")
    inputs = [TensorSpec.parse("image:float32[batch,2,3]")]
    dims = {"batch": DimRange(min=1, opt=4, max=16)}
    [packaged] = migrate(archive, tmp_path / "repository", inputs=inputs, dims=dims).packages
    [output] = config(packaged.path).output
    assert list(output.dims) == [-1, 3]  # found by running it; not batched, so dims are the whole shape


def test_config_properties_beside_the_archive_are_read_and_those_inside_win(made, tmp_path):
    for name in ("names", "base"):
        shutil.copy(made[name].path, tmp_path)
    entry = {"defaultVersion": True, "batchSize": 2, "maxBatchDelay": 5, "minWorkers": 3}
    models = {name: {"1.0": {"marName": f"{name}.mar", **entry}} for name in ("names", "base")}
    (tmp_path / "config.properties").write_text(f"models={json.dumps(models)}\n")
    [base] = migrate(tmp_path / "base.mar", tmp_path / "repository").packages
    [names] = migrate(tmp_path / "names.mar", tmp_path / "repository").packages
    assert (config(base.path).max_batch_size, config(base.path).instance_group[0].count) == (2, 3)
    assert (config(names.path).max_batch_size, config(names.path).instance_group[0].count) == (4, 1)


@pytest.mark.parametrize(
    ("text", "batch", "workers"),
    [
        ('models={\\\n  "base": {\\\n    "1.0": {\\\n      "marName": "base.mar",\\\n      "batchSize": 2\\\n    }\\\n  }\\\n}\n', 2, 1),
        ('default_workers_per_model : 3\nmodels {"base": {"1.0": {"marName": "base.mar"}}}\n', 0, 3),
        ('! mine\nmodels = {"b\\u0061se": {"1.0": {"marName": "b\\u0061se.mar", "minWorkers": 2}}}\ndefault_workers_per_model=5\n', 0, 2),
        ("default_workers_per_model=4\nload_models=all\n", 0, 4),
    ],
)  # fmt: skip
def test_config_properties_as_torchserve_documents_it(made, tmp_path, text, batch, workers):
    shutil.copy(made["base"].path, tmp_path)
    (tmp_path / "config.properties").write_text(text)
    [packaged] = migrate(tmp_path / "base.mar", tmp_path / "repository").packages
    written = config(packaged.path)
    assert (written.max_batch_size, written.instance_group[0].count) == (batch, workers)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a=1\nmodels={\\\n  broken\\\n}\n", r"config.properties: line 2: models: the value: cannot be read as JSON"),
        ("default_workers_per_model=many\n", r"config.properties: line 1: default_workers_per_model is 'many'"),
        (
            "default_workers_per_model=0\n",
            r"line 1: default_workers_per_model is '0'; expected an integer of at least 1",
        ),
    ],
)
def test_config_properties_that_cannot_be_parsed(made, tmp_path, text, said):
    shutil.copy(made["base"].path, tmp_path)
    (tmp_path / "config.properties").write_text(text)
    with pytest.raises(ArtifactError, match=said):
        migrate(tmp_path / "base.mar", tmp_path / "repository")


def test_what_could_not_be_carried_over_is_said(made, tmp_path):
    [own] = migrate(made["own"].path, tmp_path / "repository").packages
    assert any("requirements.txt is in the model's folder; the Dockerfile installs it" in note for note in own.notes)
    assert any("not available in Triton: response headers" in note for note in own.notes)


@pytest.mark.parametrize(
    ("name", "needed"),
    [("own", {"torch"}), ("base", {"torch", "torchserve", "PyYAML", "pillow"}), ("function", {"torch"})],
)
def test_the_dockerfile_has_what_the_handler_needs(made, tmp_path, name, needed):
    [packaged] = migrate(made[name].path, tmp_path / "repository").packages
    text = (packaged.path / "Dockerfile").read_text()
    installed = {word for line in text.splitlines() if line.startswith("RUN pip") for word in line.split()}
    assert needed <= installed
    assert ("torchserve" in installed) == ("torchserve" in needed)
    assert any(text in note for note in packaged.notes)
    assert packaged.command.startswith(f"docker build -t optkit-{packaged.name} ")
    assert f" optkit-{packaged.name} tritonserver " in packaged.command
    assert [finding.rule for finding in lint(tmp_path / "repository").findings] == ["T316"]
    with_path = 'parameters { key: "EXECUTION_ENV_PATH" value: { string_value: "/tmp" } }'
    (packaged.path / "config.pbtxt").write_text((packaged.path / "config.pbtxt").read_text() + with_path)
    assert lint(tmp_path / "repository").findings == ()


def test_an_image_handler_needs_the_vision_packages_and_has_a_native_form(made, tmp_path):
    with zipfile.ZipFile(made["own"].path) as opened:
        weights = next(opened.read(name) for name in opened.namelist() if name.endswith(".pt"))
    described = {"handler": "image_classifier", "serializedFile": "model.pt", "requirementsFile": "my reqs.txt"}
    archive = archives.write(tmp_path / "pictures.mar", described, {"model.pt": weights, "my reqs.txt": b"tqdm\n"})
    [packaged] = migrate(archive, tmp_path / "repository").packages
    text = (packaged.path / "Dockerfile").read_text()
    assert "torch torchvision" in text
    assert "captum" in text
    assert 'COPY ["1/mar/my reqs.txt", "/opt/requirements.txt"]' in text
    assert any("--name pictures_native" in note and "1/mar/model.pt" in note for note in packaged.notes)


def test_a_handler_that_needs_nothing_runs_in_the_stock_image(tmp_path):
    code = b"import json, numpy as np\ndef handle(data, context):\n    return data\n"
    archive = archives.write(tmp_path / "echo.mar", {"handler": "echo.py"}, {"echo.py": code})
    [packaged] = migrate(archive, tmp_path / "repository").packages
    assert not (packaged.path / "Dockerfile").exists()
    assert packaged.command.startswith("docker run ")
    assert lint(tmp_path / "repository").findings == ()


def test_a_model_that_is_there_already_is_kept(made, tmp_path):
    migrate(made["own"].path, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(
        OutputError, match=r"exists already; expected no such model\. Set another --name, or use --force"
    ):
        migrate(made["own"].path, tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
    migrate(made["own"].path, tmp_path, force=True)
    assert sorted(tmp_path.rglob("*")) == before


# Archives that are not opened.


def zipped(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def link(name):
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


MANIFEST = json.dumps({"model": {"modelName": "m", "handler": "h.py", "serializedFile": "model.pt"}})


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"../evil.py": "x"}, r"holds '\.\./evil\.py', which leads out of its folder by '\.\.'; .* No file was unpacked"),
        ({"/etc/evil": "x"}, "which is an absolute path"),
        ({"a/../../evil": "x"}, "which leads out of its folder"),
        ({"..\\evil": "x"}, "which is a path of Windows"),
        ({"C:evil": "x"}, "which is a path of Windows"),
        ({"folder/C:evil": "x"}, "which is a path of Windows"),
        ({"evil\x1b.py": "x"}, r"'evil\\x1b\.py', which holds a control character"),
        ({"x" * 300: "x"}, r"characters\), which is too long"),
        ({"MAR-INF/MANIFEST.json": MANIFEST.replace("model.pt", "..").replace("h.py", "base_handler")}, r"serializedFile names '\.\.'; expected"),
        ({"MAR-INF/MANIFEST.json": MANIFEST.replace("model.pt", "x" * 300).replace("h.py", "base_handler")}, r"characters\); expected a file of the archive"),
        ({"MAR-INF/MANIFEST.json": MANIFEST.replace("model.pt", "a\\u0000b").replace("h.py", "base_handler")}, r"'a\\x00b'; expected a file of the archive"),
        ({link("model.pt"): "/etc/passwd"}, r"the link 'model\.pt'; expected only files"),
        ({"model.pt": "x"}, "has no MAR-INF/MANIFEST.json"),
        ({"MAR-INF/MANIFEST.json": "{"}, r"MANIFEST\.json: cannot be read as JSON \("),
        ({"MAR-INF/MANIFEST.json": "[]"}, r"lacks model\.modelName"),
        ({"MAR-INF/MANIFEST.json": '{"model": {"modelName": "m"}}'}, r"lacks model\.modelName or model\.handler"),
        ({"MAR-INF/MANIFEST.json": MANIFEST.replace("h.py", "base_handler")}, "expected a file of the archive"),
    ],
)  # fmt: skip
def test_an_archive_that_cannot_be_trusted_or_used_is_refused(tmp_path, members, message):
    archive = zipped(tmp_path / "m.mar", members)
    with pytest.raises(ArtifactError, match=message):
        migrate(archive, tmp_path / "repository")
    assert [path.name for path in tmp_path.iterdir()] == ["m.mar"]
    assert not (tmp_path.parent / "evil.py").exists()


@pytest.mark.parametrize(
    ("limit", "message"), [("MAX_BYTES", "holds 200 bytes unpacked"), ("MAX_FILES", "holds 2 files")]
)
def test_too_large_an_archive_is_refused(tmp_path, monkeypatch, limit, message):
    monkeypatch.setattr(f"optkit.untrusted.archives.{limit}", 1)
    archive = zipped(tmp_path / "m.mar", {"a": "x" * 100, "b": "x" * 100})
    with pytest.raises(ArtifactError, match=message):
        migrate(archive, tmp_path / "repository")


@pytest.mark.parametrize(
    ("content", "message"), [(b"PK no zip", "cannot be read as a TorchServe archive"), (None, "no such file")]
)
def test_what_is_no_archive_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "m.mar").write_bytes(content)
    with pytest.raises(ArtifactError, match=message):
        migrate(tmp_path / "m.mar", tmp_path / "repository")


def test_a_setting_that_makes_no_sense_is_refused(tmp_path):
    members = {"h.py": "", "model-config.yaml": "batchSize: none"}
    archive = archives.write(tmp_path / "m.mar", {"handler": "h.py", "configFile": "model-config.yaml"}, members)
    with pytest.raises(
        ArtifactError, match=r"model-config.yaml: batchSize is 'none'; expected an integer of at least 1"
    ):
        migrate(archive, tmp_path / "repository")


# Other forms of an archive, and what goes with it.


def unpacked(archive, folder):
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)
    return folder


def tarred(folder, path, top):
    with tarfile.open(path, "w:gz") as opened:
        opened.add(folder, arcname=top)
    return path


@pytest.mark.parametrize("form", ["folder", "tar", "tar-with-a-folder"])
def test_every_form_of_the_archiver_gives_the_same_model(made, tmp_path, form):
    source = tmp_path / "base"
    unpacked(made["base"].path, source)
    archive = source if form == "folder" else tarred(source, tmp_path / "base.tar.gz", "." if form == "tar" else "base")
    models = {"base": {"1.0": {"marName": archive.name, "batchSize": 2}}}
    (tmp_path / "config.properties").write_text(f"models={json.dumps(models)}\n")
    [packaged] = migrate(archive, tmp_path / "repository").packages
    [zip_one] = migrate(made["base"].path, tmp_path / "other").packages
    assert packaged.files == zip_one.files
    assert config(packaged.path).max_batch_size == 2


def _tar_of(path, name, link=None):
    with tarfile.open(path, "w:gz") as opened:
        member = tarfile.TarInfo(name)
        if link:
            member.type, member.linkname = tarfile.SYMTYPE, link
        opened.addfile(member)
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: _tar_of(p / "m.tar.gz", "../evil.py"), r"'\.\./evil.py', which leads out of its folder"),
        (lambda p: _tar_of(p / "m.tar.gz", "/etc/evil.py"), "which is an absolute path"),
        (lambda p: _tar_of(p / "m.tar.gz", "link", "/etc/passwd"), "holds the link 'link'; expected only files"),
        (lambda p: _tar_of(p / "m.tar.gz", "h.py"), "has no MAR-INF/MANIFEST.json"),
        (lambda p: (p / "m").mkdir() or p / "m", "has no MAR-INF/MANIFEST.json"),
        (
            lambda p: (p / "m").mkdir() or (p / "m/h.py").symlink_to("/etc/passwd") or p / "m",
            r"holds the link 'h\.py'; expected only files",
        ),
    ],
)
def test_other_forms_that_cannot_be_trusted_are_refused(tmp_path, make, message):
    archive = make(tmp_path)
    with pytest.raises(ArtifactError, match=message):
        migrate(archive, tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_a_tar_file_that_is_cut_short_is_refused(made, tmp_path):
    unpacked(made["base"].path, tmp_path / "base")
    archive = tarred(tmp_path / "base", tmp_path / "base.tar.gz", ".")
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(ArtifactError, match="cannot be read as a TorchServe archive"):
        migrate(archive, tmp_path / "repository")


def test_config_properties_elsewhere(made, tmp_path):
    (tmp_path / "conf").mkdir()
    settings = tmp_path / "conf" / "ts.properties"
    settings.write_text('models={"base": {"1.0": {"marName": "base.mar", "batchSize": 2, "maxBatchDelay": 7}}}\n')
    [packaged] = migrate(made["base"].path, tmp_path / "repository", config=settings).packages
    assert config(packaged.path).max_batch_size == 2
    assert config(packaged.path).dynamic_batching.max_queue_delay_microseconds == 7000
    with pytest.raises(ArtifactError, match=r"gone\.properties: no such file; expected a config"):
        migrate(made["base"].path, tmp_path / "repository", config=tmp_path / "gone.properties")


def test_a_plain_model_has_golden_samples_for_smoke(onnx, tmp_path):
    archive = optkit_archive(onnx, tmp_path / "store", batch_size=8)
    [packaged] = migrate(archive, tmp_path / "repository").packages
    assert (packaged.path / "golden/1.npz").is_file()


# The same answers from both servers.


@pytest.fixture(scope="module")
def torchserve(made):
    need(importlib.util.find_spec("ts"), "torchserve is not installed")
    need(shutil.which("java"), "TorchServe needs Java")
    store = made["base"].path.parent
    models = {name: {"1.0": {"defaultVersion": True, "marName": f"{name}.mar", "minWorkers": 1}} for name in made}
    loaded = ",".join(f"{name}.mar" for name in made)
    (store / "config.properties").write_text(f"load_models={loaded}\nmodels={json.dumps(models)}\n")
    with serving(store, limit_s=120) as running:
        yield running


@pytest.fixture(scope="module")
def triton(made, tmp_path_factory):
    try:
        install = find_triton()
    except Exception as e:
        need(False, str(e))
    repository = tmp_path_factory.mktemp("repository")
    for one in made.values():
        migrate(one.path, repository)
    with TritonServer(install, repository, limit_s=180) as running:
        yield running


def ask_triton(server, model, body, content_type):
    from tritonclient import grpc

    with grpc.InferenceServerClient(server.grpc) as client:
        batched = client.get_model_config(model).config.max_batch_size > 0
        shape = [1, 1] if batched else [1]
        inputs = []
        for name, value in (("REQUEST", body), ("CONTENT_TYPE", content_type.encode())):
            tensor = grpc.InferInput(name, shape, "BYTES")
            tensor.set_data_from_numpy(np.array([value], dtype=np.object_).reshape(shape))
            inputs.append(tensor)
        return client.infer(model, inputs, client_timeout=30.0).as_numpy("RESPONSE").ravel()[0]


@pytest.mark.parametrize("name", ["base", "names", "own", "function", "eager"])
def test_triton_answers_as_torchserve_does(torchserve, triton, made, name):
    one = made[name]
    expected = torchserve.predict(name, one.body, one.content_type)
    assert expected.status == 200, expected.text
    assert ask_triton(triton, name, one.body, one.content_type).decode() == expected.text


def test_a_bad_request_is_refused_by_both(torchserve, triton):
    from tritonclient.utils import InferenceServerException

    refused = torchserve.predict("own", b'{"a": 1}', "application/json")
    assert (refused.status, refused.text) == (400, "expected text")
    with pytest.raises(InferenceServerException, match="400 Bad Request: expected text"):
        ask_triton(triton, "own", b'{"a": 1}', "application/json")


def test_a_handler_that_raises_fails_the_request_alone(torchserve, triton, made):
    from tritonclient.utils import InferenceServerException

    assert torchserve.predict("function", b'{"a": 1}', "application/json").status == 503
    with pytest.raises(InferenceServerException, match="503 Prediction failed"):
        ask_triton(triton, "function", b'{"a": 1}', "application/json")
    one = made["function"]
    assert ask_triton(triton, "function", one.body, one.content_type)
