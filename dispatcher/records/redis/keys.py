"""The layout of keys in Redis. No other module builds keys.

All keys begin with ``<instance>::``. Those of Celery's queues begin with ``<instance>:`` and a backend's name, so that
the two never collide. Keys of one run:

=========================  ======  ==========================================================================
``run:<id>``               hash    the record, as :meth:`Record.to_fields` returns it
``run:<id>:events``        stream  its events
``run:<id>:logs``          stream  its lines
``run:<id>:lines``         hash    attempt → number of its last line
``run:<id>:blobs``         hash    its own blobs, in parts
``key:<idempotency key>``  string  the id of the run that used it
=========================  ======  ==========================================================================

and common keys: ``ix:<index>`` (sorted sets of :mod:`dispatcher.runs.indexes`), ``blob:<digest>`` (hash: parts, and the
count of runs that refer to it), ``events`` (stream), ``subscribers`` (set), ``workers``, ``beats``, ``leases``,
``routes``, ``refusals`` (hashes), ``beaten``, ``queues``, ``passed`` (sorted sets by time), ``inbox:<shard>`` (stream),
``report:<nonce>`` (string, for a minute), ``claim:<id>:<attempt>`` (string: a runner's claim), ``engine:used:<day>``
(hash: run → how far its spec was used), ``engine:static`` and ``engine:static:<worker>`` (sorted sets of static
objects by the time of use); submitters can't write those of ``engine``. Channels are ``topic:<topic>``.
"""

from __future__ import annotations

from dispatcher.errors import InvalidInput
from dispatcher.support.ids import check_run_id, is_blob, is_shard

#: The key of the installation's id, the only one without its prefix.
INSTANCE = "dispatcher:instance"


class Keys:
    """The keys of one installation. Checks every id, so that no key is built from anything else.

    Raises:
        UnknownRun: by methods for keys of a run, if its id can't be one.
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
        self.static = f"{prefix}engine:static"

    def run(self, run_id: str) -> str:
        """Return the key of a run's record."""
        return f"{self.run_prefix}{check_run_id(run_id)}"

    def events(self, run_id: str) -> str:
        """Return the key of a run's events."""
        return f"{self.run(run_id)}:events"

    def logs(self, run_id: str) -> str:
        """Return the key of a run's log lines."""
        return f"{self.run(run_id)}:logs"

    def lines(self, run_id: str) -> str:
        """Return the key of the number of each attempt's last line."""
        return f"{self.run(run_id)}:lines"

    def blobs(self, run_id: str) -> str:
        """Return the key of a run's own blobs."""
        return f"{self.run(run_id)}:blobs"

    def of_run(self, run_id: str) -> tuple[str, ...]:
        """Return all keys of a run except its idempotency key."""
        run = self.run(run_id)
        return run, f"{run}:events", f"{run}:logs", f"{run}:lines", f"{run}:blobs"

    def idempotency(self, key: str) -> str:
        """Return the key of an idempotency key; empty if that is empty."""
        return f"{self.key_prefix}{key}" if key else ""

    def index(self, name: str) -> str:
        """Return the key of an index of runs."""
        return f"{self.index_prefix}{name}"

    def blob(self, digest: str) -> str:
        """Return the key of a shared blob.

        Raises:
            KeyError: no blob can have this name.
        """
        if not is_blob(digest):
            raise KeyError(digest)
        return f"{self._blob_prefix}{digest}"

    def digest(self, key: str) -> str:
        """Return the digest of the shared blob under ``key``."""
        return key.removeprefix(self._blob_prefix)

    def used(self, day: int) -> str:
        """Return the key for uses of specs whose signatures expire on ``day``, counted since the epoch."""
        return f"{self._used_prefix}{day}"

    def static_of(self, worker: str) -> str:
        """Return the key of the static objects that a worker has noted."""
        return f"{self.static}:{worker}"

    def inbox(self, shard: str) -> str:
        """Return the key of a shard's inbox.

        Raises:
            InvalidInput: no shard can have this name.
        """
        if not is_shard(shard):
            raise InvalidInput(f"shard: must be a backend, perhaps a place, and a number (local/3), got {shard!r}")
        return f"{self._inbox_prefix}{shard}"

    def report(self, nonce: str) -> str:
        """Return the key that marks a report as stored, or a rejection as counted."""
        return f"{self._report_prefix}{nonce}"

    def claim(self, run_id: str, attempt: int) -> str:
        """Return the key of a runner's claim on an attempt, used until the record contains the claim."""
        return f"{self._claim_prefix}{run_id}:{attempt}"

    def topic(self, topic: str) -> str:
        """Return the channel of a topic."""
        return f"{self.topic_prefix}{topic}"
