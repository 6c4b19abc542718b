"""What is wrong with a Triton model repository, found without a server.

rules           every rule with its code, severity and advice
linting         all checks over one repository, and the fixes
names           what Triton and its backends call their platforms, backends, accelerators and parameters
repository, reading, model_file, python_code     what is there: folders, configurations, model files
completion, supplied     what the server adds by itself: fields that the model completes, inputs that no client sends
layout, fields, parameters, batch_tensors, scheduling     the checks of one configuration
agreement, torchscript, requirements     the checks against the model file, and what its code needs
ensembles, ensemble_graph     the checks of ensembles
pbtxt           where a field stands in a text, and how it is edited
"""

from optkit.serving.triton.lint.linting import lint, loaded_versions, uses_cache, uses_gpu
from optkit.serving.triton.lint.requirements import needed_packages
from optkit.serving.triton.lint.rules import RULES, Finding, LintRecord, Rule, RuleList, Severity

__all__ = [
    "RULES",
    "Finding",
    "LintRecord",
    "Rule",
    "RuleList",
    "Severity",
    "lint",
    "loaded_versions",
    "needed_packages",
    "uses_cache",
    "uses_gpu",
]
