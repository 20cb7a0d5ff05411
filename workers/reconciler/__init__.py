"""The reconciler: finds what was lost, from the records alone.

Every worker runs it, without a leader. Each finding is taken by compare-and-set, so any number of workers may sweep at
once.
"""

from __future__ import annotations

from workers.reconciler.loop import Reconciler

__all__ = ["Reconciler"]
