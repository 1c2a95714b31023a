"""Run the tests of masking with a C extension that watches itself: ``python -m tests.wire.sanitized``.

Builds the extension with AddressSanitizer and UndefinedBehaviorSanitizer into a directory of its own (needs gcc or
clang with their run-time libraries), puts that in front of the installed one, and ends with the tests' exit status.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

#: Imports the tests' modules with the sanitized extension in the place of the installed one.
_PLUGIN = """\
import importlib.util, sys
spec = importlib.util.spec_from_file_location("iii_sync.wire._mask", {path!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
sys.modules["iii_sync.wire._mask"] = module
"""


def main() -> int:
    """Build, run, and return the exit status of the tests."""
    compiler = os.environ.get("CC", "cc")
    with tempfile.TemporaryDirectory() as directory:
        extension = os.path.join(directory, "_mask" + (sysconfig.get_config_var("EXT_SUFFIX") or ".so"))
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-g", "-O1", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror"]
            + ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", f"-I{sysconfig.get_path('include')}"]
            + [str(ROOT / "iii_sync" / "wire" / "_mask.c"), "-o", extension],
            check=True,
        )
        Path(directory, "sanitized_mask.py").write_text(_PLUGIN.format(path=extension))
        libraries = [
            subprocess.run([compiler, f"-print-file-name={name}"], check=True, capture_output=True, text=True)
            for name in ("libasan.so", "libubsan.so")
        ]
        environment = dict(
            os.environ,
            LD_PRELOAD=" ".join(found.stdout.strip() for found in libraries),
            # Python itself never frees all; what is looked for is reads and writes outside.
            ASAN_OPTIONS="detect_leaks=0:abort_on_error=1",
            PYTHONPATH=directory,
            PYTHONMALLOC="malloc",
        )
        command = [sys.executable, "-m", "pytest", "-q", "-p", "sanitized_mask", "tests/wire/test_mask.py"]
        return subprocess.run([*command, "-k", "not picked"], env=environment, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
