"""Bounds of one call of a function, as in ``lua/bounds.lua``. Senders split larger calls."""

from __future__ import annotations

#: Bytes of a JSON document: the steps of a change, the common part of runs.
LONGEST_JSON = 2**19

#: Runs that are accepted by one call.
MOST_RUNS = 100

#: Steps of a change, words of all steps, and values passed apart.
MOST_STEPS, MOST_WORDS, MOST_APART = 500, 4000, 64

#: Bytes of the template of prepared changes, and its words, each of which may have several parts.
LONGEST_TEMPLATE, MOST_PARTS = 2**16, 1000

#: Bytes of a change with all its values.
LARGEST_CHANGE = 63 * 2**20

#: Blobs that are held by one call.
MOST_HELD = 100

#: Streams that are repaired by one call, which may copy all their entries.
MOST_REPAIRED = 16

#: Runs that are removed from an index by one call.
MOST_DISPLACED = 100

#: Log lines that are appended by one call.
MOST_LINES = 500
