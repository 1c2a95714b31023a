"""State, streams, queues, listings, logs, tracing, and what an engine lets a worker do."""
