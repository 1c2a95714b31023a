"""The README renders, and every program in it runs as it stands; so do the examples."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import docutils.core
import pytest

from .support.process import ROOT, WAIT

README = (ROOT / "README.rst").read_text(encoding="utf-8")

PROGRAMS = [
    textwrap.dedent(block)
    for block in re.findall(r"^\.\. code-block:: python\n\n((?:(?: {4}.*)?\n)+)", README, re.MULTILINE)
]

EXPECTED = [
    "{'text': 'Hello, iii!'}",
    "[0, 5, 10, 15]",
    "changed: 17\n{'pieces': 2}",
    "serving",
    "StreamChannelRef(channel_id=",
    "b'some bytes, and some more'",
    "23 bytes\nwhole: True",
    "{'bytes': 10000000, 'name': 'report.csv'}",
    "['999', '998001']",
    "b'small enough to fit before anybody reads'",
    "499500\norder 0\norder 1\norder 2",
    "[0, 1, 4, 9, 16, 25]",
]


def run_program(arguments: list[str], url: str) -> str:
    """Run a program against an engine; it must end well and say nothing on stderr."""
    environment = dict(os.environ, III_URL=url, PYTHONWARNINGS="error", PYTHONPATH=str(ROOT))
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=WAIT)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_there_is_a_program_for_everything() -> None:
    """As many programs as expectations."""
    assert len(PROGRAMS) == len(EXPECTED)


@pytest.mark.parametrize("number", range(len(EXPECTED)))
def test_every_program_of_the_readme_runs(engine_url: str, number: int) -> None:
    """As it stands, on both engines."""
    output = run_program(["-c", PROGRAMS[number]], engine_url)
    # The engines do not promise the order of keys.
    assert normal(EXPECTED[number]) in normal(output)


def normal(text: str) -> str:
    """Text with the keys of small dictionaries in one order."""
    return re.sub(r"\{(.*?)\}", lambda m: "{" + ", ".join(sorted(m[1].split(", "))) + "}", text)


def test_the_readme_renders() -> None:
    """Without a warning."""
    warnings = io.StringIO()
    docutils.core.publish_doctree(
        README,
        settings_overrides={"warning_stream": warnings, "report_level": 1, "syntax_highlight": "none"},
    )
    assert warnings.getvalue() == ""


def test_the_places_it_names_exist() -> None:
    """Files and folders under "Where things live"."""
    for place in re.findall(r"^``(iii_sync/[\w./]*)``", README, re.MULTILINE):
        assert (ROOT / place).exists(), place


#: Examples that run in a server; tests/webapps has them.
SERVED = {"celery_tasks.py"}


@pytest.mark.parametrize("example", sorted({path.name for path in (ROOT / "examples").glob("*.py")} - SERVED))
def test_every_example_runs(engine_url: str, example: str, tmp_path: Path) -> None:
    """As a user would start it."""
    assert run_program([str(ROOT / "examples" / example)], engine_url)


def test_the_large_file_example_takes_a_file(engine_url: str, tmp_path: Path) -> None:
    """And counts its lines."""
    path = tmp_path / "file"
    path.write_bytes(b"one\ntwo\nthree")
    assert "2 lines, 13 bytes" in run_program([str(ROOT / "examples" / "large_file.py"), str(path)], engine_url)
