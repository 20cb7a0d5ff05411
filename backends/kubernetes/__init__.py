"""Flows as Kubernetes Jobs. Only :mod:`backends.kubernetes.api` imports the Kubernetes SDK."""
