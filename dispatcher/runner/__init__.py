"""Runs one flow where it stands: in this process, a pool process, a container."""
