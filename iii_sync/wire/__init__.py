"""The protocol, pure: bytes in, values out. No socket, thread, lock, clock or logger in here."""
