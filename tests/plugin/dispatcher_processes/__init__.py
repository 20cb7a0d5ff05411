"""Flows in processes of the worker's machine: a backend in a distribution of its own, as an example and for tests."""
