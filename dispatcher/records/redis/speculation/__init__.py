"""The speculative claim: a run is claimed without being read, by a prediction that the server checks.

The page ``docs/speculative-claim.md`` explains it. Only the records on Redis have it. Start at :mod:`.claim`.
"""
