"""Executors and the run loop."""
