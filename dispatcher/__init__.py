"""Dispatch a Python flow to an execution environment and hear exactly once how it ended."""
