"""Flows in Docker images. Read :mod:`dispatcher.storage.docker.storage` next."""
