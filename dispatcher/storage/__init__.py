"""Storages: where the code of flows lies. Read :mod:`dispatcher.storage.base` next."""
