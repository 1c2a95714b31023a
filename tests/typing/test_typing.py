"""Type checkers accept what programs do with the package, and find their mistakes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

ACCEPTED = HERE / "accepted.py"
REFUSED = HERE / "refused.py"


def found_by_mypy() -> dict[tuple[str, int], str]:
    """Return what mypy reports: the files and lines, and what it says."""
    pytest.importorskip("mypy")
    command = [sys.executable, "-m", "mypy", "--strict", "--show-traceback", "--no-error-summary", "--config-file="]
    done = subprocess.run(
        [*command, f"--cache-dir={ROOT / '.mypy_cache'}", str(ACCEPTED), str(REFUSED)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    found = re.findall(r"^(.*?\.py):(\d+): error: (.*)$", done.stdout, re.MULTILINE)
    assert done.returncode == (1 if found else 0), done.stdout
    return {(Path(name).name, int(line)): text for name, line, text in found}


def found_by_pyright() -> dict[tuple[str, int], str]:
    """Return what pyright reports."""
    program = shutil.which("pyright", path=str(Path(sys.executable).parent)) or shutil.which("pyright")
    if program is None:
        pytest.skip("pyright is not installed")
    command = [program, "--pythonpath", sys.executable, "--outputjson", str(ACCEPTED), str(REFUSED)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert done.returncode in (0, 1), done.stdout
    report = json.loads(done.stdout)["generalDiagnostics"]
    errors = [item for item in report if item["severity"] == "error"]
    return {(Path(item["file"]).name, item["range"]["start"]["line"] + 1): item["message"] for item in errors}


def expected() -> Iterable[tuple[str, int]]:
    """Return the lines that are marked as wrong."""
    for number, line in enumerate(REFUSED.read_text("utf-8").splitlines(), 1):
        if line.endswith("  # wrong"):
            yield REFUSED.name, number


@pytest.mark.timeout(300)
@pytest.mark.parametrize("checker", [found_by_mypy, found_by_pyright])
def test_mistakes_are_found_and_nothing_else(checker: Callable[[], dict[tuple[str, int], str]]) -> None:
    """Line by line."""
    found = checker()
    wrong = set(expected())
    assert len(wrong) > 30
    assert {place: text for place, text in found.items() if place not in wrong} == {}
    assert wrong - set(found) == set()
