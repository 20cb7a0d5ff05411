"""Flows in images: the storage, the build, the engine."""
