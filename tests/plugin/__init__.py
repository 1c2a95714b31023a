"""The pytest plugin, as its users meet it, and the proxy it hands out."""
