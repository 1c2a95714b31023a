"""Faults between us and the engine, and what must become of the streams under them."""
