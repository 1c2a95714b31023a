"""Peers that mean harm: engines against our client, clients against the local engine."""
