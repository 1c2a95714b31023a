"""Sockets and the reader thread. Knows frames, knows nothing of the engine's messages."""
