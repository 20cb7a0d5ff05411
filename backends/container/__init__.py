"""Shared parts of backends of containers, whatever service runs them. Read :mod:`backends.container.backend` next."""
