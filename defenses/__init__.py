"""Defenses and their cards."""
