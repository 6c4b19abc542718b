"""JUnit files, which Jenkins, GitLab and most CI systems read."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from optkit.record import atomic_path
from optkit.report.cases import Case, Outcome

# Characters that XML 1.0 does not allow even when escaped, such as the escape character of terminal colours.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_junit(path: Path, name: str, cases: Sequence[Case]) -> None:
    """Write the cases as one suite.

    Args:
        path: the file; it is replaced.
        name: the name of the suite.
        cases: the cases, in this order.

    Raises:
        OutputError: the file cannot be written.
    """
    outcomes = [case.outcome for case in cases]
    numbers = {
        "tests": len(cases),
        "failures": outcomes.count(Outcome.FAILED),
        "errors": 0,
        "skipped": outcomes.count(Outcome.SKIPPED),
        "time": f"{sum(case.seconds or 0 for case in cases):.3f}",
    }
    counts = {key: str(value) for key, value in numbers.items()}
    root = ET.Element("testsuites")
    suite = ET.SubElement(root, "testsuite", {"name": _text(name), **counts})
    for case in cases:
        where = {"classname": _text(case.artifact), "name": _text(case.check), "time": f"{case.seconds or 0:.3f}"}
        element = ET.SubElement(suite, "testcase", where)
        if case.outcome is Outcome.FAILED:
            ET.SubElement(element, "failure", {"message": _text(case.message)}).text = _text(case.message)
        elif case.outcome is Outcome.SKIPPED:
            ET.SubElement(element, "skipped", {"message": _text(case.message)})
    ET.indent(root)
    with atomic_path(path) as temporary:
        ET.ElementTree(root).write(temporary, encoding="utf-8", xml_declaration=True)


def _text(text: str) -> str:
    return _NO_XML.sub("�", text)
