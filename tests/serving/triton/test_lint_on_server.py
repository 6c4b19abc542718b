"""Lint and the real server on the same defects: what the server refuses, lint names as an error."""

import contextlib
import shutil

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
