"""The contract of a storage, as tests: what is added is found, by any process, as it was.

What the contract says stands in ``dispatcher/storage/base.py``.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dispatcher import registry
from dispatcher.errors import InvalidFlow, InvalidInput, InvalidParameters, SealBroken
from dispatcher.flows.flow import Flow
from dispatcher.storage.base import PARAMETERS, Storage, from_json
from dispatcher.testing.modules import module

#: The module whose flows are stored.
FLOWS = """
from dispatcher import flow

@flow(name="the flow / add")
def add(a, b=2):
    return a + b

@flow
def fails():
    raise LookupError("inside")

def plain():
    pass
"""


@dataclass(kw_only=True)
class StorageService:
    """A storage, and what its tests must know of it.

    Args:
        storage: the storage, ready to use.
        prepare: makes ready another object of the same value, as a worker would (``bind``).
        damage: changes the code at a location; None if it can't be changed, because it isn't stored.
        installed: True if it stores only flows of installed modules.
        ready: True if an added flow needs no build.
        runs: True if its runner (``get_env_runner``) can be called here.
    """

    storage: Storage
    prepare: Callable[[Storage], object] = lambda storage: None
    damage: Callable[[str], object] | None = None
    installed: bool = False
    ready: bool = True
    runs: bool = False


class StorageContract:
    """Tests that every storage passes. Override the fixture ``service``."""

    @pytest.fixture
    def service(self) -> StorageService:
        """An empty storage."""
        raise NotImplementedError("override the fixture 'service'")

    @pytest.fixture
    def flows(self, service: StorageService, tmp_path: Path) -> Iterator[ModuleType]:
        """A module with flows, of a project or installed."""
        with module(tmp_path, "flows_to_store", FLOWS, installed=service.installed) as flows:
            yield flows

    def test_it_is_registered(self, service: StorageService) -> None:
        assert registry.storage(type(service.storage).__name__) is type(service.storage)

    def test_an_added_flow_is_found(self, service: StorageService, flows: ModuleType) -> None:
        storage = service.storage
        location = storage.add_flow(flows.add)
        flow = storage.get_flow(location)
        assert isinstance(flow, Flow)
        assert flow.name == "the flow / add"
        assert flow(1) == 3
        assert storage.flows == {"the flow / add": location}
        assert "the flow / add" in storage
        assert "fails" not in storage
        assert flows.add not in storage
        if service.ready:
            storage.check()
            assert storage.build() is storage
        assert registry.environment("LocalEnvironment")().execute(storage, location, parameters={"a": 5}) == 7

    def test_adding_again_gives_the_same_location(self, service: StorageService, flows: ModuleType) -> None:
        location = service.storage.add_flow(flows.add)
        assert {service.storage.add_flow(flows.add) for _ in range(3)} == {location}
        assert service.storage.add_flow(flows.fails) != location

    def test_another_object_of_the_same_value_finds_it(self, service: StorageService, flows: ModuleType) -> None:
        storage = service.storage
        location = storage.add_flow(flows.add)
        described = json.loads(json.dumps(storage.to_json()))
        for another in (from_json(described), copy.deepcopy(storage)):
            assert another == storage
            assert hash(another) == hash(storage)
            assert repr(another) == repr(storage)
            assert another.flows == {}
            service.prepare(another)
            assert another.get_flow(location)(1) == 3

    def test_fields_of_another_release_are_left_aside(self, service: StorageService) -> None:
        described = {**service.storage.to_json(), "of_another_release": 1}
        assert from_json(described, stored=True) == service.storage
        with pytest.raises(InvalidInput):
            from_json(described)

    def test_only_flows_are_added(self, service: StorageService, flows: ModuleType) -> None:
        others: list[Any] = [flows.plain, None, "x"]
        for other in others:
            with pytest.raises(InvalidFlow, match="not a flow"):
                service.storage.add_flow(other)

    def test_an_empty_location_is_named(self, service: StorageService) -> None:
        for location in ("", "nowhere", "a.b:c", "0" * 64, f"x.flow#{'0' * 64}", f"../x.flow#{'0' * 64}"):
            with pytest.raises(InvalidInput, match=type(service.storage).__name__):
                service.storage.get_flow(location)

    def test_damaged_code_is_not_opened(self, service: StorageService, flows: ModuleType) -> None:
        if service.damage is None:
            pytest.skip("StorageService.damage isn't given: changed code isn't tested")
        location = service.storage.add_flow(flows.add)
        service.damage(location)
        with pytest.raises(SealBroken):
            service.storage.get_flow(location)

    def test_its_runner_runs_the_flow(self, service: StorageService, flows: ModuleType) -> None:
        location = service.storage.add_flow(flows.add)
        if not service.runs:
            with pytest.raises(InvalidInput, match=type(service.storage).__name__):
                service.storage.get_env_runner(location)
            return
        run = service.storage.get_env_runner(location)
        assert run({PARAMETERS: '{"a": 3, "b": 4}'}) == 7
        with pytest.raises(InvalidParameters, match="missing parameter 'a'"):
            run({})
        for wrong in ("[1]", "{"):
            with pytest.raises(InvalidParameters, match=PARAMETERS):
                run({PARAMETERS: wrong})
