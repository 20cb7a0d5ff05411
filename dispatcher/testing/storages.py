"""The contract of a storage, as tests: what is added is found, by any process, as it was.

What the contract says stands in ``dispatcher/storage/base.py``.
"""

from __future__ import annotations

import copy
import importlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dispatcher import registry
from dispatcher.code.activation import importing
from dispatcher.errors import InvalidFlow, InvalidInput, InvalidParameters, SealBroken
from dispatcher.flows.flow import Flow
from dispatcher.storage.base import PARAMETERS, Storage, from_json
from dispatcher.support.interpreter import PYTHON
from dispatcher.testing.modules import forget, module, project
from dispatcher.testing.waiting import wait_until

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

#: A project whose flow needs more of its files than its own module.
PROJECT = {
    "orders_to_store/__init__.py": "",
    "orders_to_store/flows.py": """
        from pathlib import Path

        from dispatcher import flow

        from . import rates
        from .rates import Order

        @flow
        def total(count):
            import taxes_to_store

            from .late import margin

            price = int((Path(__file__).parent / "price.csv").read_text())
            order = Order(count, price)
            return [order.total(), taxes_to_store.of(order.total()), margin(), rates.CURRENCY]
        """,
    "orders_to_store/rates.py": """
        from dataclasses import dataclass

        CURRENCY = "EUR"

        @dataclass(frozen=True)
        class Order:
            count: int
            price: int

            def total(self):
                return self.count * self.price
        """,
    "orders_to_store/late.py": """
        def margin():
            return "late"
        """,
    "orders_to_store/price.csv": "5",
    "taxes_to_store.py": """
        from pathlib import Path

        def of(amount):
            return amount * int((Path(__file__).parent / "taxes.txt").read_text())
        """,
    "taxes.txt": "2",
}
PROJECT_MODULES = frozenset({"orders_to_store", "taxes_to_store"})
TOTAL = [15, 30, "late", "EUR"]  #: what the flow returns for 3


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
        variables: what its runner's process needs to reach the storage, such as credentials.
    """

    storage: Storage
    prepare: Callable[[Storage], object] = lambda storage: None
    damage: Callable[[str], object] | None = None
    installed: bool = False
    ready: bool = True
    runs: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)


def kept(storage: Storage, location: str) -> Any:
    """Return the result for 3 of the project's flow, as where it runs."""
    with importing(storage.kept_bundle(location), python=PYTHON):
        return storage.get_flow(location)(3)


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
        assert [] not in storage
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

    def test_a_flow_takes_its_project_along(self, service: StorageService, tmp_path: Path) -> None:
        """As where it runs: in a process that has nothing of the project, whose files are gone."""
        if service.installed:
            pytest.skip("this storage stores only flows of installed modules")
        storage = service.storage
        with project(tmp_path, PROJECT):
            location = storage.add_flow(importlib.import_module("orders_to_store.flows").total)
        another = from_json(json.loads(json.dumps(storage.to_json())))
        service.prepare(another)
        path = list(sys.path)
        try:
            with importing(another.kept_bundle(location), python=PYTHON):
                assert another.get_flow(location)(3) == TOTAL
                assert set(sys.modules) >= PROJECT_MODULES
            assert not PROJECT_MODULES & set(sys.modules)
            assert sys.path == path
            if service.runs:
                assert another.get_env_runner(location)({**service.variables, PARAMETERS: '{"count": 3}'}) == TOTAL
        finally:
            forget(PROJECT_MODULES)

    def test_a_program_that_opens_a_flow_gets_its_project(self, service: StorageService, tmp_path: Path) -> None:
        if service.installed:
            pytest.skip("this storage stores only flows of installed modules")
        storage = service.storage
        path = list(sys.path)
        try:
            with project(tmp_path, PROJECT):
                flow = importlib.import_module("orders_to_store.flows").total
                location = storage.add_flow(flow)
                assert storage.get_flow(location) is flow
            execute = registry.environment("LocalEnvironment")().execute
            assert execute(storage, location, parameters={"count": 3}) == TOTAL
        finally:
            forget(PROJECT_MODULES)
            sys.path[:] = path

    def test_a_file_that_was_edited_is_stored_anew(self, service: StorageService, tmp_path: Path) -> None:
        if service.installed:
            pytest.skip("this storage stores only flows of installed modules")
        storage = service.storage
        with project(tmp_path, PROJECT) as root:
            flow = importlib.import_module("orders_to_store.flows").total
            first = storage.add_flow(flow)
            (root / "taxes.txt").write_text("3")
            second = wait_until(lambda: changed if (changed := storage.add_flow(flow)) != first else "", "the edit")
        assert kept(storage, second) != TOTAL
        assert kept(storage, second)[1] == 45

    def test_its_runner_runs_the_flow(self, service: StorageService, flows: ModuleType) -> None:
        location = service.storage.add_flow(flows.add)
        if not service.runs:
            with pytest.raises(InvalidInput, match=type(service.storage).__name__):
                service.storage.get_env_runner(location)
            return
        run = service.storage.get_env_runner(location)
        assert run({**service.variables, PARAMETERS: '{"a": 3, "b": 4}'}) == 7
        with pytest.raises(InvalidParameters, match="missing parameter 'a'"):
            run(service.variables)
        for wrong in ("[1]", "{"):
            with pytest.raises(InvalidParameters, match=PARAMETERS):
                run({**service.variables, PARAMETERS: wrong})
