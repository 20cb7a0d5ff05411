"""Execution of one run in a worker: claimed, provisioned or run here, ended."""
