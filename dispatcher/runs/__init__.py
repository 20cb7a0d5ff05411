"""The pure model of a run: frozen values, one table of transitions, functions from one record to the next. No I/O.

Used by all that handles runs. Read :mod:`~dispatcher.runs.states` first, then :mod:`~dispatcher.runs.transitions`.
"""
