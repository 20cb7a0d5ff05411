"""The bounds of one call of a function, as ``lua/bounds.lua`` has them; senders split what is more."""

from __future__ import annotations

#: Bytes of one JSON document: the steps of a change, what runs have in common.
LONGEST_JSON = 2**19

#: Runs that are accepted together.
MOST_RUNS = 100

#: Steps of a change, words of all of them, and words that are told apart.
MOST_STEPS, MOST_WORDS, MOST_APART = 500, 4000, 64

#: Bytes of a change with all its words.
LARGEST_CHANGE = 63 * 2**20

#: Blobs that are held together.
MOST_HELD = 100

#: Streams that are repaired together: each may be made anew, with its entries.
MOST_REPAIRED = 16

#: Log lines of one append.
MOST_LINES = 500
