"""The command line: ``iii-sync``, or ``python -m iii_sync``. Read :mod:`.main`, then :mod:`.commands`.

Each command is a file with the name of the command, and is imported only when it is used: the local engine and what it
needs stay out of a ``call``.
"""
