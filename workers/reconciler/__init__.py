"""Finds what was lost, from the records alone. In every worker, without a leader: each finding is taken by
compare-and-set, so any number of workers may look at once."""

from __future__ import annotations

from workers.reconciler.loop import Reconciler

__all__ = ["Reconciler"]
