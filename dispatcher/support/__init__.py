"""Helpers without knowledge of runs: ids, files, parsing, escaping, durations, outages."""
