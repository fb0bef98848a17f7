"""Attacks and their cards."""
