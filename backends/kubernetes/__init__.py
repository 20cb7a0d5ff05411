"""Flows as Kubernetes Jobs. Only :mod:`backends.kubernetes.access` imports the Kubernetes SDK."""
