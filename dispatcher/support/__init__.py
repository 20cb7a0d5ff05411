"""Helpers that know nothing of runs: ids, files, parsing, escaping, waiting."""
