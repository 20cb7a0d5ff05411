"""Flows as Kubernetes Jobs. Only :mod:`backends.kubernetes.cluster.connection` imports the Kubernetes SDK."""
