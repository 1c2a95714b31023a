"""Run the tests of the C extensions, built so that they watch themselves: ``python -m tests.wire.sanitized``.

Builds them with AddressSanitizer and UndefinedBehaviorSanitizer into a directory of its own (needs gcc or clang with
their run-time libraries), puts those in front of the installed ones, and ends with the tests' exit status.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

#: Each extension with the tests that go through all of it.
EXTENSIONS = {
    "wire._mask": ["tests/wire/test_mask.py", "tests/wire/test_growing.py"],
    "wire._frames": ["tests/wire/test_split.py"],
    "net._direct": ["tests/net/test_direct.py"],
}

#: Imports the tests' modules with the sanitized extensions in the place of the installed ones.
_PLUGIN = """\
import importlib.util, sys
for name, path in {built!r}.items():
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[name] = module
"""


def main() -> int:
    """Build, run, and return the exit status of the tests."""
    compiler = os.environ.get("CC", "cc")
    with tempfile.TemporaryDirectory() as directory:
        built = {}
        for name in EXTENSIONS:
            source = ROOT.joinpath("iii_sync", *name.split(".")).with_suffix(".c")
            extension = os.path.join(directory, source.stem + (sysconfig.get_config_var("EXT_SUFFIX") or ".so"))
            subprocess.run(
                [compiler, "-shared", "-fPIC", "-g", "-O1", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror"]
                + ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", f"-I{sysconfig.get_path('include')}"]
                + [str(source), "-o", extension],
                check=True,
            )
            built[f"iii_sync.{name}"] = extension
        Path(directory, "sanitized_extensions.py").write_text(_PLUGIN.format(built=built))
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
        tests = [path for paths in EXTENSIONS.values() for path in paths]
        command = [sys.executable, "-m", "pytest", "-q", "-p", "sanitized_extensions", *tests]
        return subprocess.run([*command, "-k", "not picked"], env=environment, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
