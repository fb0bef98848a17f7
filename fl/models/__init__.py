"""Architectures and their cards."""
