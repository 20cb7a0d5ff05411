"""Example flows: ``make demo`` runs them all, ``dispatcher run examples/word_count.py:word_count`` runs one."""
