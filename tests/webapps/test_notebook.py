"""The notebook, executed from its first cell to its last as Jupyter does it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..support.process import ROOT, WAIT

pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[2])
"""


def test_the_notebook_runs(local_engine_url: str, tmp_path: Path) -> None:
    """Every cell, with the results that it promises; and it is kept without outputs."""
    source, executed = ROOT / "examples" / "notebook.ipynb", tmp_path / "executed.ipynb"
    environment = dict(os.environ, III_URL=local_engine_url, PYTHONPATH=str(ROOT), HOME=str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE, str(source), str(executed)],
        env=environment,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=2 * WAIT,
    )
    assert done.returncode == 0, done.stderr
    said = [
        "".join(output["data"]["text/plain"])
        for cell in json.loads(executed.read_text())["cells"]
        for output in cell.get("outputs", [])
    ]
    assert said[1:] == ["{'lines': 100000, 'longest': 10}", "{'bytes': 4}"] and "Worker" in said[0]
    assert not any(cell.get("outputs") for cell in json.loads(source.read_text())["cells"])
