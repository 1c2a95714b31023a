"""The command line: ``python -m iii_sync``. Read :mod:`.main` first."""
