"""A change as the list of steps that ``lua/steps.lua`` takes, and the notices that listeners receive. Pure.

A step is a command of the server, or one of the script's own. Accepting runs is in ``accept.py``.
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
from dispatcher.runs.spec import DAY
from dispatcher.support.parsing import decoded, read_object

#: A doorbell as it is pushed: key of the list, message, and True if it goes first.
Push = tuple[str, bytes, bool]

#: Characters from which on a value may be passed apart from the steps.
LONG = 4096

#: Most characters of a record that the notice of its end carries.
MOST_NOTICED = 4096

# Separates the two parts of a notice. An event's fact is JSON: it begins with a brace, and contains no line end.
_FINAL = "\n="
_ID = "id"

#: The JSON of steps and notices. Values in templates of notices must be encoded in the same way.
compact_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class StepList:
    """Builds the steps of a change."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self.steps: list[tuple[Any, ...]] = []

    def add(self, *words: Any) -> None:
        """Add a step."""
        self.steps.append(words)

    def encode(self, run_id: str) -> tuple[bytes, list[str]]:
        """Return the steps as the script reads them, and the long values apart where the steps are too long.

        Raises:
            UnreadableRun: the change is larger than the server accepts; no release wrote such a record.
        """
        document, apart = compact_json(self.steps).encode(), list[str]()
        if len(document) > LONGEST_JSON:
            document = compact_json([self._shortened(step, apart) for step in self.steps]).encode()
        words, size = sum(map(len, self.steps)), len(document) + sum(len(value.encode()) for value in apart)
        for count, unit, most in (
            (len(document), "bytes of steps", LONGEST_JSON),
            (len(self.steps), "steps", MOST_STEPS),
            (words, "words of steps", MOST_WORDS),
            (len(apart), "long values", MOST_APART),
            (size, "bytes", LARGEST_CHANGE),
        ):
            if count > most:
                raise UnreadableRun(
                    f"run {run_id}: a change of its record has {count:,} {unit}, more than {most:,}; it is not applied"
                )
        return document, apart

    @staticmethod
    def _shortened(step: tuple[Any, ...], apart: list[str]) -> list[Any]:
        """Return a step with numbers, from 1, in the place of long values, which are appended to ``apart``."""
        words: list[Any] = []
        for word in step:
            if step[0] == "HSET" and len(word) > LONG:
                apart.append(word)
                words.append({"apart": len(apart)})
            else:
                words.append(word)
        return words

    def add_change(self, change: Change, push: Push | None) -> Record:
        """Add all effects of ``change``; return the record as it will be stored."""
        before, after = change.before, change.after
        assert before is not None
        after = after.but(version=before.version + 1)
        keys, result = self._keys, effects(change)
        self._add_fields(before, after)
        for index, score in result.place.items():
            self.add("ZADD", keys.index(index), repr(score), after.id)
        for index in result.leave:
            self.add("ZREM", keys.index(index), after.id)
        if change.use is not None:
            use, accepts = change.use, change.use.accepts or ()
            till = int((use.day + 1) * DAY + SAFETY)
            self.add("SPEND", keys.used(use.day), after.id, str(till), use.word, *accepts)
        self._add_events(change.events)
        for topic, event in result.notices:
            if topic != event.run_id:
                notice = format_notice([event]) + (_format_final(after) if is_ends(topic) else "")
                self.add("PUBLISH", keys.topic(topic), notice)
        self._add_claim(after, result)
        for digest in result.freed:
            self.add("FREE", keys.blob(digest), int(UNUSED_BLOB))
        if result.until is not None:
            own = (*keys.of_run(after.id), *filter(None, [keys.idempotency(after.key)]))
            self.add("KEEP", repr(result.until), int(SAFETY), *own)
        self._add_ring(change.ring, push)
        return after

    def _add_claim(self, after: Record, result: Effects) -> None:
        """Add the steps for a worker that claimed the run, or for a runner's claim that the record takes over."""
        if result.passed is not None:
            self.add("ZADD", self._keys.passed, "GT", repr(result.passed[1]), result.passed[0])
        if result.claimed_by:
            self.add("HSETNX", self._keys.beats, result.claimed_by, 0)
        if result.claimed:
            self.add("UNCLAIM", self._keys.claim(after.id, after.attempt))

    def _add_fields(self, before: Record, after: Record) -> None:
        run = self._keys.run(after.id)
        changed, gone = after.changes_since(before)
        self.add("HSET", run, *flat(changed))
        if gone:
            self.add("HDEL", run, *gone)

    def _add_events(self, events: Sequence[Event]) -> None:
        """Add the step that stores and publishes events of one run and one moment."""
        if not events:
            return
        keys, run_id = self._keys, events[0].run_id
        facts = "\n".join(event.fact for event in events)
        self.add("EVENTS", keys.events(run_id), keys.all_events, keys.topic(run_id), repr(events[0].time), facts)

    def _add_ring(self, ring: Ring | None, push: Push | None) -> None:
        if ring is None:
            return
        keys = self._keys
        self.add("USE", keys.queues, keys.routes, keys.topic(QUEUES_TOPIC), *queue_entry(ring.route))
        if push is not None:
            key, message, first = push
            # Celery takes messages with BRPOP: the right end is the head.
            self.add("RPUSH" if first else "LPUSH", key, message.decode())


def format_notice(events: Sequence[Event]) -> str:
    """Return the notice of events of one moment, as the script writes it: the time, then a line for each event."""
    return "\n".join([repr(events[0].time), *(event.fact for event in events)])


def parse_notice(raw: bytes) -> list[Event]:
    """Return the events of a notice; empty if it only says that something happened.

    Raises:
        Malformed: it can't be read.
    """
    text, _, _ = decoded(raw, "notice").partition(_FINAL)
    time, _, facts = text.partition("\n")
    return [parse() for parse in event_parsers({"fact": facts, "time": time})] if facts else []


def _format_final(record: Record) -> str:
    """Return the second part of a notice of a run's end: its id, and the fields of its record that change.

    Empty if they are too long for a notice.
    """
    changing = {name: value for name, value in record.to_fields().items() if name not in FIXED}
    document = compact_json(texts({_ID: record.id, **changing}))
    return f"{_FINAL}{document}" if len(document) <= MOST_NOTICED else ""


def parse_final(raw: bytes) -> tuple[str, dict[str, bytes]] | None:
    """Return the run id and the record's changing fields from the notice of a run's end; None for other notices.

    Raises:
        Malformed: it can't be read.
    """
    _, _, document = raw.partition(_FINAL.encode())
    if not document:
        return None
    fields = read_object(document, "notice", most=16 * MOST_NOTICED)
    changing = {name: fields.text(name).encode(errors="surrogatepass") for name in fields.data if name != _ID}
    return fields.text(_ID), changing


def event_parsers(fields: Mapping[str, str]) -> list[Callable[[], Event]]:
    """Return one parser for each event of an entry of a run's stream, so that one malformed event spoils no other."""
    facts, time = fields.get("fact", ""), fields.get("time", "")
    return [partial(Event.from_fields, {"fact": fact, "time": time}) for fact in facts.split("\n")]


@lru_cache(maxsize=1000)
def queue_entry(route: Route) -> tuple[str, str]:
    """Return a queue's name, and its route as the registry stores it."""
    return route.queue, json.dumps(route.to_json())


def texts(fields: Mapping[str, bytes | str]) -> dict[str, str]:
    """Return a record's fields as text."""
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in fields.items()}


def flat(fields: Mapping[str, bytes | str]) -> list[str]:
    """Return names and values in turn, as commands take them."""
    return [word for pair in texts(fields).items() for word in pair]


def fields_of(flat: Sequence[bytes]) -> dict[str, bytes]:
    """Return a hash from the names and values that the server replies in turn."""
    return {flat[n].decode(errors="replace"): flat[n + 1] for n in range(0, len(flat), 2)}
