"""Data sets, their cards and partitions."""
