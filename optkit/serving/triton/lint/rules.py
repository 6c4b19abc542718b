"""The rules of the lint, and what a finding is."""

import dataclasses
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import ClassVar

from optkit.record import Document, Record
from optkit.serving.triton.lint.pbtxt import Edit


class Severity(StrEnum):
    """An error: the server refuses the model, or answers wrongly. A warning: it depends on more than the repository says."""

    ERROR = "error"
    WARNING = "warning"


class Rule(Record):
    """One thing that can be wrong, and what to do about it."""

    id: str
    summary: str
    advice: str
    severity: Severity = Severity.ERROR
    fixable: bool = False


class Finding(Record):
    """One fault in a repository; `file` is relative to it, and `line` counts from 1."""

    rule: str
    severity: Severity
    model: str
    file: str
    line: int | None
    message: str
    advice: str
    fixable: bool


class LintRecord(Document):
    """What was found in a repository; `fixed` is what --fix has mended, which `findings` no longer holds."""

    schema_id: ClassVar[str] = "optkit/lint/1"

    repository: Path
    models: tuple[str, ...]
    findings: tuple[Finding, ...]
    fixed: tuple[Finding, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong; warnings do not count."""
        return all(finding.severity is not Severity.ERROR for finding in self.findings)


class RuleList(Document):
    """Every rule."""

    schema_id: ClassVar[str] = "optkit/lint-rules/1"

    rules: tuple[Rule, ...]


@dataclasses.dataclass(frozen=True)
class Problem:
    """A finding, and how it is mended where that is safe: edits of its file, or a file to make."""

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
) -> Problem:
    """Return a problem with what its rule says of it."""
    found = RULES[rule]
    finding = Finding(
        rule=rule,
        severity=found.severity,
        model=model,
        file=file,
        line=line,
        message=message,
        advice=found.advice,
        fixable=bool(edits) or make_file is not None,
    )
    return Problem(finding, tuple(edits), make_file)


_WARNING = Severity.WARNING
_ALL = (
    # 1: folders and files
    Rule(id="T101", summary="no config.pbtxt", advice="Write a config.pbtxt, or run optkit package triton."),
    Rule(
        id="T102",
        summary="the configuration is left to the server's auto-completion",
        advice="Write inputs, outputs and max_batch_size out: a server with --disable-auto-complete-config refuses this.",
        severity=_WARNING,
    ),
    Rule(id="T103", summary="config.pbtxt is no valid text format", advice="Mend the syntax."),
    Rule(id="T104", summary="unknown field", advice="Correct the name, or remove the field."),
    Rule(id="T105", summary="unknown value of an enumeration", advice="Use a value that Triton's schema has."),
    Rule(id="T106", summary="value of another type than the field's", advice="Give a value of the field's type."),
    Rule(id="T107", summary="two of which only one may be given", advice="Keep one of them."),
    Rule(
        id="T110",
        summary="the name is not the folder's",
        advice="Give the model the name of its folder.",
        fixable=True,
    ),
    Rule(
        id="T111",
        summary="no version folder",
        advice="Put the model into a folder that is called 1.",
        fixable=True,  # for an ensemble, whose version folder holds nothing
    ),
    Rule(
        id="T112",
        summary="a folder that the server does not take for a version",
        advice="Call it by a number that does not start with 0, as in 1.",
        severity=_WARNING,
    ),
    Rule(
        id="T113",
        summary="the model file is missing",
        advice="Put the file there, or name it as default_model_filename.",
    ),
    Rule(id="T114", summary="the version policy names versions that are not there", advice="Correct the policy."),
    Rule(
        id="T115",
        summary="a folder that is no model",
        advice="Move it out of the repository: the server tries to load every folder.",
    ),
    Rule(
        id="T116",
        summary="an empty version folder",
        advice="Put a file into it: git and archives drop empty folders.",
        severity=_WARNING,
        fixable=True,
    ),
    Rule(
        id="T117", summary="a file that the configuration names is missing", advice="Add the file, or correct its name."
    ),
    Rule(
        id="T118",
        summary="a file that the configuration names lies outside its folder",
        advice="Put the file into that folder: the repository cannot be moved or shared without it. Nothing outside was read.",
        severity=_WARNING,  # the server follows such a name
    ),
    # 2: the configuration by itself
    Rule(id="T201", summary="max_batch_size is negative", advice="Write 0 for no batching."),
    Rule(id="T202", summary="unknown platform or backend", advice="Correct the name.", fixable=True),
    Rule(id="T203", summary="platform and backend disagree", advice="Keep the one that fits the model file."),
    Rule(id="T204", summary="neither platform nor backend", advice='Name the backend, as in backend: "onnxruntime".'),
    Rule(
        id="T205",
        summary="a preferred batch size that cannot be formed",
        advice="Keep sizes from 1 to max_batch_size.",
        fixable=True,
    ),
    Rule(
        id="T206",
        summary="batching is asked of a model that takes no batches",
        advice="Set max_batch_size, or remove the batching.",
    ),
    Rule(id="T207", summary="a tensor without name, data_type or dims", advice="Give each tensor all three."),
    Rule(id="T208", summary="an impossible dimension", advice="Write 1 or more, or -1 for a size that varies."),
    Rule(id="T209", summary="a tensor is declared twice", advice="Give each tensor a name of its own."),
    Rule(id="T210", summary="a reshape that changes the number of elements", advice="Let both shapes hold as many."),
    Rule(id="T211", summary="instance count below 1", advice="Write a count of 1 or more."),
    Rule(
        id="T212",
        summary="an ensemble with instances of its own",
        advice="Remove instance_group: the members have their own.",
        fixable=True,
    ),
    Rule(
        id="T213", summary="instances and GPUs do not fit together", advice="Name GPUs only with KIND_GPU, each once."
    ),
    Rule(id="T214", summary="queue policy for a priority that is not there", advice="Use 1 to priority_levels."),
    Rule(
        id="T215", summary="warm-up that does not fit the inputs", advice="Give every input, with its type and shape."
    ),
    Rule(
        id="T216",
        summary="an accelerator that cannot run here",
        advice="GPU accelerators need KIND_GPU instances, and CPU ones KIND_CPU; correct the name.",
    ),
    Rule(id="T217", summary="response cache for a model that may answer many times", advice="Remove one of the two."),
    Rule(id="T218", summary="a format that does not fit the dims", advice="FORMAT_NHWC and FORMAT_NCHW need 3 dims."),
    Rule(id="T219", summary="sequence batching that is incomplete", advice="See Triton's model_configuration.md."),
    Rule(id="T220", summary="version policy that loads nothing", advice="Write num_versions of 1 or more."),
    Rule(id="T221", summary="a ragged batch of a model without batching", advice="Set max_batch_size, or remove it."),
    # 3: the model file against the configuration
    Rule(id="T301", summary="a tensor that the model does not have", advice="Use the model's own names."),
    Rule(
        id="T302", summary="an input of the model is not declared", advice="Declare every input that the model needs."
    ),
    Rule(
        id="T303",
        summary="an output of the model is not declared",
        advice="Declare it if clients need it: the server does not give it.",
        severity=_WARNING,
    ),
    Rule(id="T304", summary="the data type is not the model's", advice="Declare the type of the model.", fixable=True),
    Rule(id="T305", summary="the dims are not the model's", advice="Declare the shape of the model.", fixable=True),
    Rule(
        id="T306",
        summary="the batch stands in dims",
        advice="Leave it out: with max_batch_size above 0 the server puts it in front.",
        fixable=True,
    ),
    Rule(
        id="T307",
        summary="the model cannot be batched as asked",
        advice="Set max_batch_size: 0 and full shapes, or export with a dynamic batch dimension first.",
    ),
    Rule(id="T308", summary="the model file cannot be read", advice="Export the model again; keep its data beside it."),
    Rule(
        id="T309",
        summary="a name that the PyTorch backend cannot find",
        advice="Call inputs by forward's arguments or INPUT__0, outputs OUTPUT__0, in their order.",
    ),
    Rule(id="T310", summary="model.py is no Python model", advice="Define class TritonPythonModel with execute()."),
    Rule(
        id="T311",
        summary="model.py asks for a tensor that is not declared",
        advice="Declare it in config.pbtxt, or correct the name in model.py.",
    ),
    # 4: ensembles
    Rule(id="T401", summary="an ensemble without steps", advice="Add ensemble_scheduling with its steps."),
    Rule(id="T402", summary="a step's model is not there", advice="Correct model_name, or add the model."),
    Rule(
        id="T403",
        summary="a step's version is not loaded",
        advice="Use -1 for the latest, or a version that is loaded.",
    ),
    Rule(id="T404", summary="a map names no tensor of the step's model", advice="The key is the model's own name."),
    Rule(id="T405", summary="an input of a step's model is not given", advice="Map every input of the model."),
    Rule(
        id="T406",
        summary="a tensor that nothing produces",
        advice="Take an input of the ensemble or an output of a step.",
    ),
    Rule(id="T407", summary="a tensor that is written twice", advice="Give each output of a step its own tensor name."),
    Rule(id="T408", summary="two ends of a tensor have other types", advice="Convert between them, or correct one."),
    Rule(id="T409", summary="two ends of a tensor have other shapes", advice="Reshape between them, or correct one."),
    Rule(id="T410", summary="max_batch_size above a member's", advice="Lower it to the smallest of the members'."),
    Rule(
        id="T411",
        summary="an ensemble without batches over members that take them",
        advice="Set max_batch_size: each request passes alone, and its shapes need the batch of 1 in front.",
        severity=_WARNING,
    ),
    Rule(id="T412", summary="a circle of steps", advice="Break the circle: no step may need its own result."),
    Rule(id="T413", summary="a tensor that nobody takes", advice="Map it to an input or output, or remove it."),
)
RULES = {rule.id: rule for rule in _ALL}
