"""Execution environments: their base class and their callbacks."""
