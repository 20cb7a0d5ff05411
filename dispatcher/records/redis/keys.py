"""The one layout of keys in Redis. Nobody else builds a key.

Everything lives under ``<instance>::``; Celery's queues lie under ``<instance>:`` and begin with a backend's name, so
the two never meet. Keys of one run:

=========================  ======  ==========================================================================
``run:<id>``               hash    the record, as :meth:`Record.to_fields` gives it
``run:<id>:events``        stream  its events
``run:<id>:logs``          stream  its lines
``run:<id>:lines``         hash    attempt → number of the last line kept
``run:<id>:blobs``         hash    its own blobs, in parts
``key:<idempotency key>``  string  the id of the run that has it
=========================  ======  ==========================================================================

and of all: ``ix:<index>`` (sorted sets of :mod:`dispatcher.runs.indexes`), ``blob:<digest>`` (hash: parts, and the
count of runs that refer to it), ``events`` (stream), ``subscribers`` (set), ``workers``, ``beats``, ``leases``,
``routes``, ``refusals`` (hashes), ``beaten``, ``queues``, ``passed`` (sorted sets by time), ``inbox:<shard>`` (stream),
``report:<nonce>`` (string, for a minute), ``claim:<id>:<attempt>`` (string: a runner's claim), ``engine:used:<day>``
(hash: run → how far its spec was used; submitters can't write there). Channels are ``topic:<topic>``.
"""

from __future__ import annotations

from dispatcher.errors import InvalidInput
from dispatcher.support.ids import check_run_id, is_blob, is_shard

#: Holds the installation's id; the one key outside its prefix.
INSTANCE = "dispatcher:instance"


class Keys:
    """The keys of one installation: the last door of ids. What hasn't the form of one becomes no key.

    Raises:
        UnknownRun: by each key of a run, for an id that no run can have.
    """

    def __init__(self, instance: str) -> None:
        prefix = f"{instance}::"
        self.run_prefix = f"{prefix}run:"
        self.index_prefix = f"{prefix}ix:"
        self.topic_prefix = f"{prefix}topic:"
        self._blob_prefix = f"{prefix}blob:"
        self.key_prefix = f"{prefix}key:"
        self._inbox_prefix = f"{prefix}inbox:"
        self._used_prefix = f"{prefix}engine:used:"
        self._report_prefix = f"{prefix}report:"
        self._claim_prefix = f"{prefix}claim:"
        self.all_events = f"{prefix}events"
        self.subscribers = f"{prefix}subscribers"
        self.workers = f"{prefix}workers"
        self.beats = f"{prefix}beats"
        self.beaten = f"{prefix}beaten"
        self.leases = f"{prefix}leases"
        self.queues = f"{prefix}queues"
        self.routes = f"{prefix}routes"
        self.passed = f"{prefix}passed"
        self.refusals = f"{prefix}refusals"

    def run(self, run_id: str) -> str:
        """A run's record."""
        return f"{self.run_prefix}{check_run_id(run_id)}"

    def events(self, run_id: str) -> str:
        """A run's events."""
        return f"{self.run(run_id)}:events"

    def logs(self, run_id: str) -> str:
        """A run's lines."""
        return f"{self.run(run_id)}:logs"

    def lines(self, run_id: str) -> str:
        """The number of the last line of each attempt."""
        return f"{self.run(run_id)}:lines"

    def blobs(self, run_id: str) -> str:
        """A run's own blobs."""
        return f"{self.run(run_id)}:blobs"

    def of_run(self, run_id: str) -> tuple[str, ...]:
        """Every key that belongs to a run alone, but its idempotency key."""
        run = self.run(run_id)
        return run, f"{run}:events", f"{run}:logs", f"{run}:lines", f"{run}:blobs"

    def idempotency(self, key: str) -> str:
        """An idempotency key; an empty one has no key."""
        return f"{self.key_prefix}{key}" if key else ""

    def index(self, name: str) -> str:
        """An index of runs."""
        return f"{self.index_prefix}{name}"

    def blob(self, digest: str) -> str:
        """A shared blob.

        Raises:
            KeyError: no blob is called so.
        """
        if not is_blob(digest):
            raise KeyError(digest)
        return f"{self._blob_prefix}{digest}"

    def digest(self, key: str) -> str:
        """The digest of the shared blob that ``key`` holds."""
        return key.removeprefix(self._blob_prefix)

    def used(self, day: int) -> str:
        """Return the key of how far the specs were used whose signatures expire on a day, counted since the epoch."""
        return f"{self._used_prefix}{day}"

    def inbox(self, shard: str) -> str:
        """A shard's reports.

        Raises:
            InvalidInput: no shard is called so.
        """
        if not is_shard(shard):
            raise InvalidInput(f"shard: must be a backend, perhaps a place, and a number (local/3), got {shard!r}")
        return f"{self._inbox_prefix}{shard}"

    def report(self, nonce: str) -> str:
        """Marks a report as stored, a refusal as counted."""
        return f"{self._report_prefix}{nonce}"

    def claim(self, run_id: str, attempt: int) -> str:
        """A runner's claim on an attempt, until the record tells it."""
        return f"{self._claim_prefix}{run_id}:{attempt}"

    def topic(self, topic: str) -> str:
        """The channel of a topic."""
        return f"{self.topic_prefix}{topic}"
