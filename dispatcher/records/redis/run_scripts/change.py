"""A change as the list of steps that ``lua/steps.lua`` takes. Pure.

A step is a command of the server, or one of the script's own words. How runs are accepted: ``acceptance.py``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

from dispatcher.errors import UnreadableRun
from dispatcher.records.effects import QUEUES_TOPIC, SAFETY, UNUSED_BLOB, Effects, effects
from dispatcher.records.events import is_ends
from dispatcher.records.redis.bounds import LARGEST_CHANGE, LONGEST_JSON, MOST_APART, MOST_STEPS, MOST_WORDS
from dispatcher.records.redis.keys import Keys
from dispatcher.runs.change import Change, Ring
from dispatcher.runs.events import Event
from dispatcher.runs.record import FIXED, Record
from dispatcher.runs.routing import Route
from dispatcher.support.parsing import decoded, read_object

#: A doorbell as it is pushed: key of the list, message, and whether it goes first.
Push = tuple[str, bytes, bool]

#: Seconds of a day: specs whose signatures expire on one are remembered together.
DAY = 86400.0

#: Characters from which on a word of many may be told apart.
LONG = 4096

#: Most characters of a record that a notice of its end tells.
MOST_TOLD = 4096

# Between the two parts of a notice. A fact is JSON: it begins with a brace, and holds no line end.
_REST = "\n="
_ID = "id"

_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Program:
    """Lists steps."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._steps: list[tuple[Any, ...]] = []

    def step(self, *words: Any) -> None:
        """Add a step."""
        self._steps.append(words)

    def listed(self) -> bytes:
        """The steps as the script reads them."""
        return _json(self._steps).encode()

    def told(self, run_id: str) -> tuple[bytes, list[str]]:
        """The steps as the script reads them; where they are much, their long words are told apart, in this order.

        Raises:
            UnreadableRun: the change of this run is more than the server takes: no release wrote its record.
        """
        listed, apart = self.listed(), list[str]()
        if len(listed) > LONGEST_JSON:
            listed = _json([self._without(step, apart) for step in self._steps]).encode()
        words, size = sum(map(len, self._steps)), len(listed) + sum(len(word.encode()) for word in apart)
        for count, what, most in (
            (len(listed), "bytes of steps", LONGEST_JSON),
            (len(self._steps), "steps", MOST_STEPS),
            (words, "words of steps", MOST_WORDS),
            (len(apart), "long words", MOST_APART),
            (size, "bytes", LARGEST_CHANGE),
        ):
            if count > most:
                raise UnreadableRun(f"run {run_id}: a change of it has {count:,} {what}, more than {most:,}: it stays")
        return listed, apart

    @staticmethod
    def _without(step: tuple[Any, ...], apart: list[str]) -> list[Any]:
        """A step whose long values are put into ``apart``, with their number there, from 1, in their places."""
        words: list[Any] = []
        for word in step:
            if step[0] == "HSET" and len(word) > LONG:
                apart.append(word)
                words.append({"apart": len(apart)})
            else:
                words.append(word)
        return words

    def commit(self, change: Change, push: Push | None) -> Record:
        """Everything that ``change`` means; the record as it will be."""
        before, after = change.before, change.after
        assert before is not None
        after = after.but(version=before.version + 1)
        keys, meant = self._keys, effects(change)
        self._fields(before, after)
        for index, score in meant.place.items():
            self.step("ZADD", keys.index(index), repr(score), after.id)
        for index in meant.leave:
            self.step("ZREM", keys.index(index), after.id)
        if change.use is not None:
            use, accepts = change.use, change.use.accepts or ()
            till = int((use.day + 1) * DAY + SAFETY)
            self.step("SPEND", keys.used(use.day), after.id, str(till), use.word, *accepts)
        self._events(change.events)
        for topic, event in meant.notices:
            if topic != event.run_id:
                told = notice([event]) + (_rest(after) if is_ends(topic) else "")
                self.step("PUBLISH", keys.topic(topic), told)
        self._claimed(after, meant)
        for digest in meant.freed:
            self.step("FREE", keys.blob(digest), int(UNUSED_BLOB))
        if meant.until is not None:
            own = (*keys.of_run(after.id), *filter(None, [keys.idempotency(after.key)]))
            self.step("KEEP", repr(meant.until), int(SAFETY), *own)
        self._ring(change.ring, push)
        return after

    def _claimed(self, after: Record, meant: Effects) -> None:
        """A worker took the run, or its record takes up the claim of its runner."""
        if meant.passed is not None:
            self.step("ZADD", self._keys.passed, "GT", repr(meant.passed[1]), meant.passed[0])
        if meant.claimed_by:
            self.step("HSETNX", self._keys.beats, meant.claimed_by, 0)
        if meant.claimed:
            self.step("UNCLAIM", self._keys.claim(after.id, after.attempt))

    def _fields(self, before: Record, after: Record) -> None:
        run = self._keys.run(after.id)
        changed, gone = after.changes_since(before)
        self.step("HSET", run, *flat(changed))
        if gone:
            self.step("HDEL", run, *gone)

    def _events(self, events: Sequence[Event]) -> None:
        """Keep and tell events of one run and one moment."""
        if not events:
            return
        keys, run_id = self._keys, events[0].run_id
        facts = (event.fact for event in events)
        self.step("EVENTS", keys.events(run_id), keys.all_events, keys.topic(run_id), repr(events[0].time), *facts)

    def _ring(self, ring: Ring | None, push: Push | None) -> None:
        if ring is None:
            return
        keys = self._keys
        self.step("USE", keys.queues, keys.routes, keys.topic(QUEUES_TOPIC), *described(ring.route))
        if push is not None:
            key, message, first = push
            # Celery takes messages with BRPOP: the right end is the head.
            self.step("RPUSH" if first else "LPUSH", key, message.decode())


def notice(events: Sequence[Event]) -> str:
    """Return what listeners are told of events of one moment: the time, then a line for each; as the script writes
    it."""
    return "\n".join([repr(events[0].time), *(event.fact for event in events)])


def _rest(record: Record) -> str:
    """Return what a notice of a run's end adds: its id and its record, but for what never changes; nothing where that
    is much."""
    changing = {name: value for name, value in record.to_fields().items() if name not in FIXED}
    added = _json(texts({_ID: record.id, **changing}))
    return f"{_REST}{added}" if len(added) <= MOST_TOLD else ""


def rest(raw: bytes) -> tuple[str, dict[str, bytes]] | None:
    """Return what a notice of a run's end adds: the run's id, and its record but for what never changes; None for
    others.

    Raises:
        Malformed: it can't be read.
    """
    _, _, added = raw.partition(_REST.encode())
    if not added:
        return None
    fields = read_object(added, "notice", most=16 * MOST_TOLD)
    changing = {name: fields.text(name).encode(errors="surrogatepass") for name in fields.data if name != _ID}
    return fields.text(_ID), changing


def told(raw: bytes) -> list[Event]:
    """The inverse of :func:`notice`; none for a notice that is only a nudge.

    Raises:
        Malformed: it can't be read.
    """
    text, _, _ = decoded(raw, "notice").partition(_REST)
    time, _, facts = text.partition("\n")
    return [read() for read in kept({"fact": facts, "time": time})] if facts else []


def kept(fields: Mapping[str, str]) -> list[Callable[[], Event]]:
    """Return functions that read the events of one entry of a run's stream, those of one moment, each by itself."""
    facts, time = fields.get("fact", ""), fields.get("time", "")
    return [partial(Event.from_fields, {"fact": fact, "time": time}) for fact in facts.split("\n")]


@lru_cache(maxsize=1000)
def described(route: Route) -> tuple[str, str]:
    """A queue's name, and its route as the registry keeps it."""
    return route.queue, json.dumps(route.to_json())


def texts(fields: Mapping[str, bytes | str]) -> dict[str, str]:
    """A record's fields as text."""
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in fields.items()}


def flat(fields: Mapping[str, bytes | str]) -> list[str]:
    """Names and values in turn, as commands take them."""
    return [word for pair in texts(fields).items() for word in pair]


def fields_of(flat: Sequence[bytes]) -> dict[str, bytes]:
    """A hash as the server replies it."""
    return {flat[n].decode(errors="replace"): flat[n + 1] for n in range(0, len(flat), 2)}
