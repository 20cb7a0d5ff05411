"""Connections to the server: idle ones, errors, health, streams."""
