"""The contract's own test: it finds backends that break it in ways that show late in production."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from backends.base import Handle, Observation, Request
from backends.fake import FakeBackend, FakeEnvironment
from dispatcher import Cause
from dispatcher.testing import BackendContract, BackendService
from tests.waiting import wait_until


class SortsHandles(FakeBackend):
    """Answers in an order of its own."""

    def poll(self, handles: Sequence[Handle]) -> list[Observation]:
        return super().poll(sorted(handles, key=lambda handle: str(handle["name"])))


class SortsThemBackwards(FakeBackend):
    def poll(self, handles: Sequence[Handle]) -> list[Observation]:
        return super().poll(sorted(handles, key=lambda handle: str(handle["name"]), reverse=True))


class DeletesByName(FakeBackend):
    """Deletes whatever has the name that a request would give."""

    def cancel(self, handle: Handle | None, request: Request | None) -> bool:
        if handle is None and request is not None:
            return self._delete_by_name(request)
        return super().cancel(handle, request)

    def _delete_by_name(self, request: Request) -> bool:
        named = [
            orphan.handle
            for instance in ("i1", "others")
            for orphan in self.orphans(instance)
            if orphan.handle["name"] == request["name"]
        ]
        return all(super(DeletesByName, self).cancel(handle, None) for handle in named)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """The folder that plays the service."""
    yield tmp_path
    for file in tmp_path.glob("*.json"):
        file.with_suffix(".deleted").touch()
    wait_until(lambda: not list(tmp_path.glob("*.json")), "an empty service", timeout=60)


def service_of(directory: Path, kind: type[FakeBackend]) -> BackendService:
    ledger = directory / "ledger.jsonl"
    return BackendService(
        backend=kind(),
        environment=FakeEnvironment(directory, "image_pull"),
        created=lambda: ledger.read_text().count('"created"') if ledger.exists() else 0,
        reopen=kind,
        cause=Cause.IMAGE_PULL,
    )


@pytest.mark.parametrize("kind", [SortsHandles, SortsThemBackwards])
def test_a_backend_that_answers_in_another_order_fails(directory: Path, kind: type[FakeBackend]) -> None:
    with pytest.raises(AssertionError, match="in the order given"):
        BackendContract().test_many_are_observed_in_the_order_given(service_of(directory, kind))


@pytest.mark.parametrize("others", [{"run_id": "r2"}, {"instance": "others"}])
def test_a_backend_that_deletes_by_name_alone_fails(directory: Path, others: dict[str, str]) -> None:
    with pytest.raises(AssertionError, match="deletes what that request made"):
        BackendContract().test_infrastructure_of_others_is_not_taken(service_of(directory, DeletesByName), others)
