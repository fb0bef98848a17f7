"""Leakage and utility; the only place where truth meets reconstruction."""
