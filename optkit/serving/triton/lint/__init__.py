"""What is wrong with a Triton model repository, found without a server.

rules           every rule with its code, severity and advice
linting         all checks over one repository, and the fixes
repository, reading, model_file     what is there: folders, configurations, model files
layout, fields, scheduling, agreement, ensembles    the checks
pbtxt           where a field stands in a text, and how it is edited
"""

from optkit.serving.triton.lint.linting import lint, loaded_versions, uses_cache, uses_gpu
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
    "uses_cache",
    "uses_gpu",
]
