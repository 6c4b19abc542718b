"""The rules and the records of the lint."""

import dataclasses
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import ClassVar

from optkit.record import Document, Record
from optkit.serving.triton.lint.pbtxt import Edit


class Severity(StrEnum):
    """Error: the server refuses the model or gives wrong answers. Warning: this depends on facts that the repository does not show."""

    ERROR = "error"
    WARNING = "warning"


class Rule(Record):
    """One kind of problem, and how to fix it."""

    id: str
    summary: str
    advice: str
    severity: Severity = Severity.ERROR
    fixable: bool = False


class Finding(Record):
    """One problem in a repository. `file` is relative to the repository, and `line` counts from 1."""

    rule: str
    severity: Severity
    model: str
    file: str
    line: int | None
    message: str
    advice: str
    fixable: bool


class LintRecord(Document):
    """The findings in a repository. `fixed` holds those that --fix has fixed; `findings` holds the others."""

    schema_id: ClassVar[str] = "optkit/lint/1"

    repository: Path
    models: tuple[str, ...]
    findings: tuple[Finding, ...]
    fixed: tuple[Finding, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether there is no error; warnings do not count."""
        return all(finding.severity is not Severity.ERROR for finding in self.findings)


class RuleList(Document):
    """All rules."""

    schema_id: ClassVar[str] = "optkit/lint-rules/1"

    rules: tuple[Rule, ...]


@dataclasses.dataclass(frozen=True)
class Problem:
    """A finding with its safe fix, if there is one: edits of the file, or a file to create."""

    finding: Finding
    edits: tuple[Edit, ...] = ()
    make_file: Path | None = None


def problem(
    rule: str,
    model: str,
    file: str,
    message: str,
    line: int | None = None,
    edits: Sequence[Edit] = (),
    make_file: Path | None = None,
    severity: Severity | None = None,
) -> Problem:
    """Return a problem with the advice of its rule, and with its severity unless another is given."""
    found = RULES[rule]
    finding = Finding(
        rule=rule,
        severity=severity or found.severity,
        model=model,
        file=file,
        line=line,
        message=message,
        advice=found.advice,
        fixable=bool(edits) or make_file is not None,
    )
    return Problem(finding, tuple(edits), make_file)


def without_fix(found: Problem) -> Problem:
    """Return a problem without its fix."""
    return Problem(found.finding.model_copy(update={"fixable": False}))


_WARNING = Severity.WARNING
_ALL = (
    # 1: folders and files
    Rule(id="T101", summary="no config.pbtxt", advice="Write a config.pbtxt, or run optkit package triton."),
    Rule(
        id="T102",
        summary="the configuration relies on the server's auto-completion",
        advice="Add inputs, outputs and max_batch_size: a server with --disable-auto-complete-config refuses the model otherwise.",
        severity=_WARNING,
    ),
    Rule(id="T103", summary="config.pbtxt is not valid protobuf text format", advice="Fix the syntax."),
    Rule(id="T104", summary="unknown field", advice="Correct the name, or remove the field."),
    Rule(id="T105", summary="unknown enum value", advice="Use a value of Triton's schema."),
    Rule(id="T106", summary="value has a different type than its field", advice="Use a value of the field's type."),
    Rule(id="T107", summary="mutually exclusive fields are both set", advice="Keep one of them."),
    Rule(
        id="T110",
        summary="model name and folder name differ",
        advice="Set the name to the name of the folder.",
        fixable=True,
    ),
    Rule(
        id="T111",
        summary="no version folder",
        advice="Move the model file to a folder with the name 1.",
        fixable=True,  # for an ensemble: its version folder holds no file
    ),
    Rule(
        id="T112",
        summary="the folder name is not a valid version",
        advice="Rename it to a number without a leading 0, for example 1.",
        severity=_WARNING,
    ),
    Rule(
        id="T113",
        summary="the model file is missing",
        advice="Add the file, or set default_model_filename.",
    ),
    Rule(id="T114", summary="the version policy names missing versions", advice="Correct the policy."),
    Rule(
        id="T115",
        summary="the folder is not a model",
        advice="Move it out of the repository: the server tries to load every folder.",
    ),
    Rule(
        id="T116",
        summary="the version folder is empty",
        advice="Add a file to it: git and archives drop empty folders.",
        severity=_WARNING,
        fixable=True,
    ),
    Rule(
        id="T117", summary="a file that the configuration names is missing", advice="Add the file, or correct its name."
    ),
    Rule(
        id="T118",
        summary="a file that the configuration names is outside its folder",
        advice="Move the file into the folder, so that the repository can be moved and shared. optkit did not read the file.",
        severity=_WARNING,  # the server follows such a path
    ),
    Rule(
        id="T119",
        summary="a configuration in a version folder",
        advice="Move it up, beside the version folders: the server reads only that one.",
    ),
    # 2: the configuration by itself
    Rule(id="T201", summary="max_batch_size is negative", advice="Write 0 for no batching."),
    Rule(id="T202", summary="unknown platform or backend", advice="Correct the name.", fixable=True),
    Rule(
        id="T203", summary="platform and backend contradict each other", advice="Keep the one that fits the model file."
    ),
    Rule(
        id="T204",
        summary="neither platform nor backend is set",
        advice='Set the backend, for example backend: "onnxruntime".',
    ),
    Rule(
        id="T205",
        summary="preferred batch size out of range",
        advice="Use sizes from 1 to max_batch_size.",
        fixable=True,
    ),
    Rule(
        id="T206",
        summary="dynamic batching for a model without a batch dimension",
        advice="Set max_batch_size, or remove dynamic_batching.",
    ),
    Rule(id="T207", summary="tensor lacks name, data_type or dims", advice="Set all three for each tensor."),
    Rule(id="T208", summary="invalid dimension", advice="Use 1 or more, or -1 for a dynamic dimension."),
    Rule(id="T209", summary="duplicate tensor name", advice="Give each tensor a different name."),
    Rule(
        id="T210", summary="reshape changes the number of elements", advice="Use shapes with equal numbers of elements."
    ),
    Rule(id="T211", summary="instance count below 1", advice="Use a count of 1 or more."),
    Rule(
        id="T212",
        summary="instance_group in an ensemble",
        advice="Remove instance_group: each member model has its own.",
        fixable=True,
    ),
    Rule(
        id="T213",
        summary="instance kind and GPUs contradict each other",
        advice="Use gpus only with KIND_GPU, and each GPU once.",
    ),
    Rule(id="T214", summary="priority level does not exist", advice="Use 1 to priority_levels."),
    Rule(id="T215", summary="warm-up does not fit the inputs", advice="Give every input with its type and shape."),
    Rule(
        id="T216",
        summary="accelerator does not fit the instances",
        advice="Use GPU accelerators with KIND_GPU and CPU accelerators with KIND_CPU, or correct the name.",
    ),
    Rule(id="T217", summary="response cache for a decoupled model", advice="Remove one of the two."),
    Rule(id="T218", summary="format does not fit the dims", advice="Use FORMAT_NHWC and FORMAT_NCHW with 3 dims."),
    Rule(id="T219", summary="incomplete sequence batching", advice="See Triton's model_configuration.md."),
    Rule(id="T220", summary="the version policy loads no version", advice="Set num_versions to 1 or more."),
    Rule(
        id="T221",
        summary="ragged batch in a model without batching",
        advice="Set max_batch_size, or remove allow_ragged_batch.",
    ),
    Rule(
        id="T222",
        summary="a parameter that the backend does not accept",
        advice="Use a name and a value of the backend's documentation.",
    ),
    Rule(
        id="T223",
        summary="incomplete batch input or batch output",
        advice="Name one declared input as source and declared outputs as targets.",
    ),
    Rule(
        id="T224",
        summary="a field for TensorRT engines only",
        advice="Remove it, or serve a TensorRT engine.",
    ),
    Rule(
        id="T225",
        summary="a resource is both global and of one device",
        advice="Set global alike wherever the resource is named: all models share it.",
    ),
    Rule(
        id="T226",
        summary="the order of responses is preserved, but requests can be delayed",
        advice="Remove preserve_ordering, or use one priority level and timeout_action REJECT.",
    ),
    # 3: the model file against the configuration
    Rule(id="T301", summary="tensor is not in the model", advice="Use the names in the model file."),
    Rule(
        id="T302", summary="an input of the model is not declared", advice="Declare every input that the model needs."
    ),
    Rule(
        id="T303",
        summary="an output of the model is not declared",
        advice="Declare it if clients need it: the server does not return undeclared outputs.",
        severity=_WARNING,
    ),
    Rule(id="T304", summary="data type differs from the model", advice="Declare the model's data type.", fixable=True),
    Rule(id="T305", summary="dims differ from the model", advice="Declare the model's shape.", fixable=True),
    Rule(
        id="T306",
        summary="dims contain the batch dimension",
        advice="Remove it from dims: with max_batch_size above 0, the server adds it.",
        fixable=True,
    ),
    Rule(
        id="T307",
        summary="max_batch_size for a model without a dynamic batch dimension",
        advice="Set max_batch_size: 0 and complete shapes, or export the model with a dynamic first dimension.",
    ),
    Rule(id="T308", summary="the model file cannot be read", advice="Export the model again; keep its data beside it."),
    Rule(
        id="T309",
        summary="the PyTorch backend cannot map the name",
        advice="Use the names of forward's arguments or INPUT__0 for inputs, and OUTPUT__0 for outputs, in their order.",
    ),
    Rule(
        id="T310", summary="model.py is not a Python model", advice="Define a class TritonPythonModel with execute()."
    ),
    Rule(
        id="T311",
        summary="model.py uses an undeclared tensor",
        advice="Declare it in config.pbtxt, or correct the name in model.py.",
    ),
    Rule(
        id="T312",
        summary="a data type that the PyTorch backend does not have",
        advice="Declare a type that TorchScript has, and convert in the model.",
    ),
    Rule(
        id="T313",
        summary="forward has a type that the PyTorch backend does not take",
        advice="Wrap the model: tensors or one dict of tensors in, a tensor or a tuple of tensors out.",
    ),
    Rule(
        id="T314",
        summary="execute of a decoupled model returns a list",
        advice="Send responses by request.get_response_sender() and return None.",
    ),
    Rule(
        id="T315",
        summary="model.py calls a model that is missing",
        advice="Correct model_name, or add the model.",
    ),
    Rule(
        id="T316",
        summary="the handler of an archive needs packages that Triton's image lacks",
        advice="Serve it in an image with them, as the Dockerfile of optkit migrate makes it, or set EXECUTION_ENV_PATH.",
        severity=_WARNING,
    ),
    # 4: ensembles
    Rule(id="T401", summary="ensemble without steps", advice="Add ensemble_scheduling with its steps."),
    Rule(id="T402", summary="the model of a step is missing", advice="Correct model_name, or add the model."),
    Rule(
        id="T403",
        summary="the version of a step is not loaded",
        advice="Use -1 for the latest version, or a loaded version.",
    ),
    Rule(id="T404", summary="unknown tensor in the map of a step", advice="Use the model's tensor name as the key."),
    Rule(id="T405", summary="an input of a step is not mapped", advice="Map every input of the model."),
    Rule(
        id="T406",
        summary="no step produces the tensor",
        advice="Use an input of the ensemble or an output of a step.",
    ),
    Rule(
        id="T407",
        summary="two steps produce the same tensor",
        advice="Give each output of a step a different tensor name.",
    ),
    Rule(id="T408", summary="producer and consumer types differ", advice="Convert the tensor, or correct one of them."),
    Rule(
        id="T409", summary="producer and consumer shapes differ", advice="Reshape the tensor, or correct one of them."
    ),
    Rule(
        id="T410",
        summary="max_batch_size is above that of a member",
        advice="Lower it to the smallest max_batch_size of the members.",
    ),
    Rule(
        id="T411",
        summary="ensemble without batching, although its members batch",
        advice="Set max_batch_size: otherwise requests are not batched, and shapes need a batch dimension of 1.",
        severity=_WARNING,
    ),
    Rule(id="T412", summary="cycle of steps", advice="Remove the cycle: no step may need its own result."),
    Rule(id="T413", summary="unused tensor", advice="Map it to an input or output, or remove it."),
    Rule(
        id="T414",
        summary="tensors of different decoupled models meet",
        advice="Join only tensors of the same decoupled step: the others come in another number of responses.",
    ),
    Rule(
        id="T415",
        summary="an ensemble has fields of its members",
        advice="Remove the field: set it in the configuration of each member.",
    ),
)
RULES = {rule.id: rule for rule in _ALL}
