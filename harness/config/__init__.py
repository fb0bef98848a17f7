"""Matrices: from YAML to trial specs."""
