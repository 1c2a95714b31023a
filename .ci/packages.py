"""Check what the sdist and the wheel in a folder hold, and what their metadata say. Run by ``.ci/run``."""

from __future__ import annotations

import configparser
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main(folder: Path) -> None:
    """Fail with the first thing that is wrong."""
    (sdist,) = folder.glob("iii_sync-*.tar.gz")
    (wheel,) = folder.glob("iii_sync-*.whl")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()

    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames() if archive.getmember(name).isfile()}
    # Everything that is in the repository but for the dotfiles, and nothing else but what setuptools adds.
    expected = {name for name in listed if not name.startswith(".")}
    found = {name for name in inside if ".egg-info/" not in name} - {"PKG-INFO"}
    same(sdist.name, found, expected)

    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
        (metadata,) = [name for name in inside if name.endswith(".dist-info/METADATA")]
        head = Parser().parsestr(archive.read(metadata).decode())
    info = metadata.rpartition("/")[0]
    expected = {name for name in listed if name.startswith("iii_sync/") and not name.endswith(".c")}
    found = {name for name in inside if not name.startswith(info)}
    extensions = {name for name in found if name.endswith((".so", ".pyd"))}
    for module in ("wire/_mask", "wire/_frames", "net/_direct"):
        built = [name for name in extensions if name.startswith(f"iii_sync/{module}.")]
        assert len(built) == 1, f"{module} was not built: {extensions}"
    same(wheel.name, found - extensions, expected)
    assert any(name.startswith(info) and name.endswith("/LICENSE") for name in inside), "no LICENSE in the wheel"

    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    extras = {name.replace("_", "-") for name in settings["options.extras_require"]}
    assert set(head.get_all("Provides-Extra", [])) == extras, head.get_all("Provides-Extra")
    assert head["Requires-Python"] == settings["options"]["python_requires"]
    needed = [line for line in head.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert needed == settings["options"]["install_requires"].split(), needed
    for version in (9, 10, 11, 12, 13):
        assert f"Programming Language :: Python :: 3.{version}" in head.get_all("Classifier", []), version


def same(where: str, found: set[str], expected: set[str]) -> None:
    """Fail if the files are not the expected ones."""
    assert found == expected, f"{where}: missing {sorted(expected - found)}, stray {sorted(found - expected)}"


main(Path(sys.argv[1]))
