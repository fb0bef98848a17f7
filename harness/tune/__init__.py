"""Tuning: which defense, and how strong, buys the least leakage for the utility it costs."""
