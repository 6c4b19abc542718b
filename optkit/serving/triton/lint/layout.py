"""The folders and files of a model: name, versions, model file, and files in the configuration (T101 to T119)."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from optkit.serving.triton.lint.completion import without_configuration
from optkit.serving.triton.lint.pbtxt import Edit
from optkit.serving.triton.lint.repository import CONFIG, Model
from optkit.serving.triton.lint.rules import Problem, Severity, problem
from optkit.untrusted.paths import exists, is_file, is_folder, name_fault, shown


def check_layout(model: Model, models: Mapping[str, Model]) -> Iterator[Problem]:
    """Yield the problems in the folder of a model; `models` are all models of the repository."""
    misplaced = [file for file in (folder / CONFIG for folder in model.versions.values()) if is_file(file)]
    if model.text is None:
        yield from _without_config(model, misplaced)
        return
    for file in misplaced:
        said = f"{CONFIG} in version folder {file.parent.name} is not read; the server reads {model.name}/{CONFIG}"
        yield model.file_fault("T119", said, file, severity=Severity.WARNING)
    if model.config is None:
        return
    yield from _name(model, models)
    yield from _versions(model)
    yield from _model_files(model)
    yield from _named_files(model)


def _without_config(model: Model, misplaced: Sequence[Path]) -> Iterator[Problem]:
    if exists(model.folder / CONFIG):
        return  # it exists but cannot be read, which is reported already
    if misplaced:
        said = f"{CONFIG} is in version folder {misplaced[0].parent.name}; the server reads it only in {model.name}"
        yield model.file_fault("T119", said, misplaced[0])
    elif not model.versions:
        found = ", ".join(sorted(part.name for part in model.folder.iterdir())[:4]) or "nothing"
        yield problem("T115", model.name, model.name, f"holds {found}; expected {CONFIG} and a version folder")
    elif completed := without_configuration(model):
        yield problem("T102", model.name, model.name, f"has no {CONFIG}; {completed}")
    else:
        yield problem(
            "T101", model.name, model.name, f"has no {CONFIG}, and its model file does not contain its inputs"
        )


def _name(model: Model, models: Mapping[str, Model]) -> Iterator[Problem]:
    """Compare the name with the folder. If the steps of an ensemble use the name, the folder can be what is wrong."""
    assert model.config is not None
    name = model.config.name
    if not name or name == model.name:
        return
    value = model.tree.find("name")
    configs = [other.config for other in models.values() if other.config is not None]
    used = any(step.model_name == name for config in configs for step in config.ensemble_scheduling.step)
    edits = (Edit(value.start, value.end, f'"{model.name}"'),) if value and not used else ()
    yield model.fault("T110", f"name is {name!r}; the folder is {model.name!r}", "name", edits=edits)


def _versions(model: Model) -> Iterator[Problem]:
    assert model.config is not None
    wrong = [part for part in sorted(model.folder.iterdir()) if is_folder(part) and _looks_like_version(part.name)]
    if not model.versions:
        why = (
            f"{', '.join(part.name for part in wrong)} is not a version"
            if wrong
            else "there is no folder with a number"
        )
        any_version = model.config.version_policy.WhichOneof("policy_choice") != "specific"
        make = model.folder / "1" / ".keep" if model.is_ensemble and not wrong and any_version else None
        yield problem(
            "T111", model.name, model.name, f"has no version: {why}; expected a folder such as 1", make_file=make
        )
        return
    for part in wrong:
        yield model.file_fault("T112", f"folder {part.name!r} is not a valid version", part)
    policy = model.config.version_policy
    if policy.WhichOneof("policy_choice") == "specific":
        if not policy.specific.versions:
            yield model.fault("T220", "version_policy.specific names no version", "version_policy")
        for i, version in enumerate(policy.specific.versions):
            if version not in model.versions:
                there = ", ".join(map(str, model.versions))
                yield model.fault(
                    "T114",
                    f"version_policy names version {version}; existing versions: {there}",
                    "version_policy",
                    "specific",
                    "versions",
                    i,
                )
    if policy.WhichOneof("policy_choice") == "latest" and policy.latest.num_versions < 1:
        yield model.fault("T220", "version_policy.latest.num_versions is 0", "version_policy")


def _looks_like_version(name: str) -> bool:
    return re.fullmatch(r"(?:v|version|ver)?[-_.]?\d+(?:\.\d+)*", name, re.IGNORECASE) is not None and not re.fullmatch(
        r"[1-9]\d*", name
    )


def _model_files(model: Model) -> Iterator[Problem]:
    assert model.config is not None
    if model.is_ensemble:
        for folder in model.loaded.values():
            if not any(folder.iterdir()):
                yield problem(
                    "T116",
                    model.name,
                    f"{model.name}/{folder.name}",
                    f"version folder {folder.name} contains no file",
                    make_file=folder / ".keep",
                )
        return
    names = list(dict.fromkeys(model.config.cc_model_filenames.values()))
    if not names or model.config.default_model_filename:
        names += [model.filename] if model.filename else []
    for name in [name for name in names if name_fault(name)]:
        names.remove(name)
        key = "default_model_filename" if name == model.config.default_model_filename else "cc_model_filenames"
        yield model.fault(_rule("T113", name), f"{key} {shown(name)} {name_fault(name)}", key)
    for folder in model.loaded.values():
        for name in names:
            if not (is_file(folder / name) or is_folder(folder / name)):
                there = ", ".join(sorted(part.name for part in folder.iterdir())[:4]) or "nothing"
                yield problem(
                    "T113",
                    model.name,
                    f"{model.name}/{folder.name}",
                    f"version {folder.name} does not contain {name}; it contains {there}",
                )


def _rule(missing: str, name: str) -> str:
    """Return the rule for a path that optkit does not follow: T118 if the server follows it, otherwise `missing`."""
    return "T118" if ".." in PurePosixPath(name).parts else missing


def _named_files(model: Model) -> Iterator[Problem]:
    """Check label files, warm-up data and the environment of a Python model."""
    assert model.config is not None
    for i, output in enumerate(model.config.output):
        if output.label_filename and (fault := name_fault(output.label_filename)):
            said = f"label_filename {shown(output.label_filename)} of output {output.name!r} {fault}"
            yield model.fault(_rule("T117", output.label_filename), said, "output", i, "label_filename")
        elif output.label_filename and not is_file(model.folder / output.label_filename):
            said = f"label_filename {output.label_filename!r} of output {output.name!r} is not in the model's folder"
            yield model.fault("T117", said, "output", i, "label_filename")
    for i, sample in enumerate(model.config.model_warmup):
        for name, tensor in sample.inputs.items():
            file = tensor.input_data_file
            line = model.tree.entry("inputs", name, "model_warmup", i)
            if file and (fault := name_fault(file)):
                yield model.fault(_rule("T117", file), f"warm-up data {shown(file)} {fault}", line=line)
            elif file and not is_file(model.folder / "warmup" / file):
                yield model.fault("T117", f"warm-up data {file!r} is not in {model.name}/warmup", line=line)
    environment = model.config.parameters.get("EXECUTION_ENV_PATH")
    if environment is not None:
        path = environment.string_value.replace("$$TRITON_MODEL_DIRECTORY", str(model.folder))
        if not os.path.exists(path):  # noqa: PTH110 - Path.exists() raises where a name is too long
            line = model.tree.entry("parameters", "EXECUTION_ENV_PATH")
            yield model.fault("T117", f"EXECUTION_ENV_PATH {environment.string_value!r} does not exist", line=line)
