"""Workers inside the servers that people run: gunicorn, celery, executors, and gevent's patched processes."""
