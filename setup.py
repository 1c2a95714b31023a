"""The part of the set-up that ``setup.cfg`` cannot say: the C extensions."""

import os

from setuptools import Extension, setup

# Optional: where they cannot be built the package works without, more slowly (iii_sync/wire/mask.py, wire/frames.py,
# net/direct.py).
extensions = [
    Extension("iii_sync.wire._mask", ["iii_sync/wire/_mask.c"], optional=True),
    Extension("iii_sync.wire._frames", ["iii_sync/wire/_frames.c"], optional=True),
]
if os.name == "posix":
    extensions.append(Extension("iii_sync.net._direct", ["iii_sync/net/_direct.c"], optional=True))
setup(ext_modules=extensions)
