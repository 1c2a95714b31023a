"""The part of the set-up that ``setup.cfg`` cannot say: the C extension."""

from setuptools import Extension, setup

# Optional: where it cannot be built the package works without it, more slowly (see iii_sync/wire/mask.py).
setup(ext_modules=[Extension("iii_sync.wire._mask", ["iii_sync/wire/_mask.c"], optional=True)])
