"""Lint and the real server on the same defects: what the server refuses, lint names as an error."""

import contextlib
import queue
import shutil

import numpy as np
import pytest
import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException

from optkit.serving.triton.lint import RULES, Severity, lint
from optkit.serving.triton.server import TritonServer
from tests.support.defects import DEFECTS
from tests.support.repositories import Repository, write_good


class Judge:
    """A server in explicit mode that is shown one repository after the other in the same folder."""

    def __init__(self, install, folder):
        self.install = install
        self.folder = folder
        self.server = self.client = None

    def refusal(self, model):
        """Return the server's own message, or None when it loads the model; a server that dies of it refuses it too."""
        self._start()
        before = len(self.server.log)
        try:
            self.client.load_model(model, client_timeout=60)
            for loaded in self.client.get_model_repository_index(as_json=True).get("models", []):
                self.client.unload_model(loaded["name"], client_timeout=60)
        except InferenceServerException as e:
            reasons = [line for line in self.server.log[before:].splitlines() if line[:1] == "E" and "] " in line]
            return (reasons[0].partition("] ")[2] if reasons else e.message()) or e.message()
        return None

    def _start(self):
        if self.server is not None and self.server.running:
            with contextlib.suppress(InferenceServerException):
                for loaded in self.client.get_model_repository_index(as_json=True).get("models", []):
                    self.client.unload_model(loaded["name"], client_timeout=60)
                return
        self.stop()
        self.server = TritonServer(self.install, self.folder, models=()).__enter__()
        self.client = grpc.InferenceServerClient(self.server.grpc)

    def stop(self):
        if self.server is not None:
            self.client.close()
            self.server.__exit__()


@pytest.fixture(scope="module")
def judge(triton, tmp_path_factory):
    judge = Judge(triton, tmp_path_factory.mktemp("judged"))
    yield judge
    judge.stop()


@pytest.fixture
def repository(judge):
    for part in judge.folder.iterdir():
        shutil.rmtree(part) if part.is_dir() else part.unlink()
    return Repository(write_good(judge.folder))


@pytest.mark.parametrize("model", ["classifier", "pre", "pipeline", "talk", "stream", "total", "fixed"])
def test_the_good_repository_loads(judge, repository, model):
    assert judge.refusal(model) is None


@pytest.mark.parametrize("defect", [d for d in DEFECTS if d.refused is not None], ids=lambda d: d.name)
def test_lint_and_the_server_agree(judge, repository, defect):
    defect.make(repository)
    finding = lint(repository.folder).findings[0]
    said = judge.refusal(defect.model)
    print(f"\n{finding.rule} {RULES[finding.rule].summary}: {finding.message}\nserver: {said}")
    assert (said is not None) == defect.refused
    if said is not None and finding.severity is Severity.WARNING:
        assert finding.rule in ("T102",)  # which holds under --disable-auto-complete-config only


@pytest.mark.parametrize(
    ("defect", "said"),
    [
        ("decoupled-returns-list", "is using the decoupled mode and the execute function must return None"),
        ("calls-missing-model", "'classify'"),
    ],
)
def test_what_the_server_refuses_with_the_first_request(judge, repository, defect, said):
    """These load; the server names them when a request comes, as lint does before."""
    (one,) = [d for d in DEFECTS if d.name == defect]
    one.make(repository)
    if defect == "calls-missing-model":
        code = (repository.folder / "pre/1/model.py").read_text()
        assert "requested_output_names=[])" in code
        repository.edit_code("pre/1/model.py", "requested_output_names=[])", "requested_output_names=[]).exec()")
        code = (repository.folder / "pre/1/model.py").read_text().replace(".exec()\n", ".exec().error().message()\n")
        code = code.replace("        answers = []\n        pb_utils", "        answers = []\n        said = pb_utils")
        repository.write("pre/1/model.py", code.replace("return answers", "raise pb_utils.TritonModelException(said)"))
    assert [f.rule for f in lint(repository.folder).findings] == [one.rule]
    assert judge.refusal(one.model) is None
    judge.client.load_model(one.model, client_timeout=60)
    with pytest.raises(InferenceServerException, match=said):
        _ask(judge.client, one.model)


def _ask(client, model):
    values = np.zeros((1, 4), np.uint8) if model == "pre" else np.zeros(1, np.int32)
    name, kind = ("raw", "UINT8") if model == "pre" else ("n", "INT32")
    tensor = grpc.InferInput(name, list(values.shape), kind)
    tensor.set_data_from_numpy(values)
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put(error))
    client.async_stream_infer(model, [tensor])
    error = answers.get(timeout=60)
    client.stop_stream()
    if error is not None:
        raise error
