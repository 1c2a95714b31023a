"""The measured clients: a module each, with ``run(task, line)``."""
