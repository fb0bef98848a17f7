"""Federated learning: what exists whether or not anyone attacks."""
