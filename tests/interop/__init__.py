"""The official SDKs, installed from their registries, against ours: in every pair, direction and size."""
