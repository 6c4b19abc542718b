"""Lint of Triton model repositories without a server."""

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
