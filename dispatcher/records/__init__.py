"""The records of runs: small interfaces in ``base``, and two kinds that keep them, ``memory`` and ``redis``."""
