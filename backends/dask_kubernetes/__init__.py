"""Flows with a temporary Dask cluster on Kubernetes. Read :mod:`backends.dask_kubernetes.manifest` next."""
