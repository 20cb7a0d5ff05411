"""Writes of a supervisor, on behalf of a shard's lease."""

from __future__ import annotations

from functools import partial

from dispatcher.runs import transitions
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.states import State
from tests.unit.supervisor_scene import Scene
from workers.supervisor.clock import ServerClock
from workers.supervisor.record_cache import RecordCache
from workers.supervisor.record_writer import RecordWriter
from workers.supervisor.shards import Shards


def make_writer(scene: Scene) -> RecordWriter:
    runs = scene.records.runs
    shards = Shards(scene.records.leases, scene.supervisor.family, "w1")
    shards.share(["w1"], ())
    return RecordWriter(runs, RecordCache(scene.records, lambda record: record), shards, ServerClock(runs))


def test_a_step_that_the_record_refuses_writes_nothing_and_raises_nothing() -> None:
    scene = Scene()
    record = scene.running("r1")
    refused = partial(transitions.finish, epoch=record.epoch + 1, outcome=Outcome())
    assert not make_writer(scene).update(record, refused)
    assert scene.record("r1").version == record.version


def test_a_step_is_written_and_the_run_is_forgotten_once_it_has_ended() -> None:
    scene = Scene()
    record, writer = scene.running("r1"), make_writer(scene)
    writer.cache.put(record)
    assert writer.update(record, partial(transitions.finish, epoch=record.epoch, outcome=Outcome()))
    assert scene.record("r1").state is State.SUCCEEDED
    assert writer.cache.get("r1") is None
