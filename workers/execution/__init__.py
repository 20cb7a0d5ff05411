"""One run in the worker: claimed, provisioned or run here, ended."""
