"""The web applications among the examples, in the servers and the browser that people use; the notebook; celery."""
