"""Benchmarking: plan, run, judge and store trials."""
