"""Whole runs in Python: load, train, evaluate, report."""
