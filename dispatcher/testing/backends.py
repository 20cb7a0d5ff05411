"""The contract of a backend with infrastructure, as tests: pure requests, adoption, observation, confirmed ends.

What the contract says stands in ``backends/base.py``. Backends in the worker's own process have no infrastructure, and
so nothing to test here.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from dispatcher import registry
from dispatcher.environments import from_json
from dispatcher.environments.base import Environment
from dispatcher.errors import Permanent, Transient
from dispatcher.runs.attempt import Attempt, object_name
from dispatcher.runs.states import Cause
from dispatcher.testing.waiting import wait_until

if TYPE_CHECKING:
    from backends.base import Backend, Observation, Scaled

#: A secret variable of every container that the tests create; it may stand in no request and in no handle.
SECRET = "a canary that nobody may see"

_GONE = "gone"
_SCALED = ("first_workers", "max_workers", "workers", "create_workers", "delete_workers", "worker_logs")


@dataclass(kw_only=True)
class BackendService:
    """A backend in a service of its own, empty at first.

    Args:
        backend: the backend.
        environment: what its attempts run.
        created: returns how many containers the service has created, by the service's own account.
        reopen: makes the same backend as another process would.
        phases: those in which a container of ``environment`` stays, or ends.
        cause: why it stays so; None if there is no cause.
        lose_reply: a context in which the service carries out the next request, and its reply is lost; None if that
            can't be arranged.
        cut_off: a context in which the service can't be reached; None likewise.
        workers_created: returns how many workers of attempts the service has created; None if ``environment`` has none.
    """

    backend: Backend
    environment: Environment
    created: Callable[[], int]
    reopen: Callable[[], Backend]
    phases: frozenset[str] = frozenset({"waiting"})
    cause: Cause | None = None
    lose_reply: Callable[[], AbstractContextManager[None]] | None = None
    cut_off: Callable[[], AbstractContextManager[None]] | None = None
    workers_created: Callable[[], int] | None = None

    def attempt(self, name: str, **changes: Any) -> Attempt:
        """Return an attempt whose infrastructure is to be called ``name``."""
        attempt = Attempt(
            run_id="r1",
            number=1,
            name=name,
            instance="i1",
            shard="s1",
            environment=self.environment.to_json(),
            variables={},
        )
        changed = replace(attempt, **changes)
        variables = {"DISPATCHER__RUN__ID": changed.run_id, "DISPATCHER__RUN__ATTEMPT": str(changed.number)}
        return replace(changed, variables={**variables, **changed.variables})

    def request(self, name: str, **changes: Any) -> Mapping[str, Any]:
        """Return the request of such an attempt as it is stored: read from JSON again."""
        request: dict[str, Any] = json.loads(json.dumps(self.backend.prepare(self.attempt(name, **changes))))
        return request

    def submit(self, request: Mapping[str, Any], *, backend: Backend | None = None) -> Mapping[str, Any]:
        """Submit a request with a secret."""
        return (backend or self.backend).submit(request, {"DISPATCHER__RUN__TOKEN": SECRET})

    def poll(self, *handles: Mapping[str, Any]) -> Sequence[Observation]:
        """Observe these handles."""
        return self.backend.poll(handles)

    def workers(self, handle: Mapping[str, Any]) -> list[str]:
        """Return the names of the workers that aren't gone; ``["?"]`` while nobody knows. The attempt is polled first,
        as supervisors do all the time: that has looked up what a watch stopped to show."""
        self.poll(handle)
        try:
            states = self.scaled(self.backend).workers(handle)
        except Transient:
            return ["?"]
        return [state.name for state in states if str(state.observation.phase) != _GONE]

    def create_workers(
        self,
        handle: Mapping[str, Any],
        request: Mapping[str, Any],
        names: Sequence[str],
        *,
        backend: Backend | None = None,
    ) -> None:
        """Create workers; try again as long as that may help."""

        def create() -> bool:
            try:
                self.scaled(backend or self.backend).create_workers(handle, request, names)
            except Transient:
                return False
            return True

        wait_until(create, f"workers {', '.join(names)}", timeout=60)

    def delete_workers(self, handle: Mapping[str, Any], names: Sequence[str]) -> None:
        """Delete workers until it is confirmed."""
        backend = self.scaled(self.backend)
        wait_until(lambda: backend.delete_workers(handle, names), "the end of deleted workers", timeout=60)

    @staticmethod
    def scaled(backend: Backend) -> Scaled:
        """Return a backend as one whose attempts have workers."""
        lacking = [name for name in _SCALED if not hasattr(backend, name)]
        assert not lacking, f"backend {backend.name} isn't Scaled: it lacks {', '.join(lacking)}"
        return cast("Scaled", backend)

    def delete(self, handle: Mapping[str, Any] | None, request: Mapping[str, Any] | None) -> None:
        """Cancel until it is confirmed."""
        wait_until(lambda: self.backend.cancel(handle, request), "the confirmation of a cancel", timeout=60)


class BackendContract:
    """Tests that every backend with infrastructure passes. Override the fixture ``service``."""

    @pytest.fixture
    def service(self) -> BackendService:
        """A backend in an empty service."""
        raise NotImplementedError("override the fixture 'service'")

    def test_backend_and_environment_are_registered(self, service: BackendService) -> None:
        environment = service.environment
        assert registry.backend(environment.backend) is type(service.backend)
        assert service.backend.name == environment.backend
        assert not service.backend.in_process
        environment.check()
        assert from_json(json.loads(json.dumps(environment.to_json()))) == environment

    def test_a_request_is_pure_and_json(self, service: BackendService) -> None:
        attempt = service.attempt("flow-a-1")
        request = service.backend.prepare(attempt)
        assert json.loads(json.dumps(request)) == request
        assert service.backend.prepare(attempt) == request, "the same attempt must give the same request"
        assert service.backend.prepare(service.attempt("flow-a-2", number=2)) != request
        assert service.backend.rendered(request)
        assert service.created() == 0

    def test_the_same_request_is_carried_out_once(self, service: BackendService) -> None:
        request = service.request("flow-b-1")
        handle = service.submit(request)
        assert json.loads(json.dumps(handle)) == handle
        assert service.submit(request) == handle, "the second call must adopt what the first one made"
        assert service.reopen().submit(request, {}) == handle, "another worker's call, too"
        assert service.created() == 1
        assert SECRET not in json.dumps([request, handle])

    def test_two_workers_that_submit_at_once_get_one_handle(self, service: BackendService) -> None:
        request = service.request("flow-c-1")
        backends = [service.backend, service.reopen()]
        handles: list[Mapping[str, Any]] = []
        barrier = threading.Barrier(len(backends))

        def submit(backend: Backend) -> None:
            barrier.wait(timeout=60)
            handles.append(service.submit(request, backend=backend))

        threads = [threading.Thread(target=submit, args=(backend,)) for backend in backends]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert len(handles) == len(backends)
        assert handles[0] == handles[1]
        assert service.created() == 1

    @pytest.mark.parametrize("others", [{"run_id": "r2"}, {"instance": "others"}], ids=["run", "installation"])
    def test_infrastructure_of_others_is_not_taken(self, service: BackendService, others: Mapping[str, str]) -> None:
        request = service.request("flow-d-1")
        handle = service.submit(request)
        foreign = service.request("flow-d-1", **others)
        with pytest.raises(Permanent) as caught:
            service.submit(foreign)
        assert caught.value.cause is Cause.START_FAILED
        service.delete(None, foreign)
        assert str(service.poll(handle)[0].phase) != _GONE, "a cancel by request deletes what that request made"
        assert service.submit(request) == handle
        assert service.created() == 1

    def test_many_are_observed_in_the_order_given(self, service: BackendService) -> None:
        first, second, third = (service.submit(service.request(f"flow-e-{number}")) for number in (1, 2, 3))
        service.delete(second, None)

        def settled() -> Sequence[Observation]:
            observations = service.poll(second, third, first)  # no order that a sort gives, forwards or backwards
            phases = [str(observation.phase) for observation in observations]
            assert _GONE not in phases[1:], "poll must answer in the order given"
            return observations if phases[0] == _GONE and set(phases[1:]) <= service.phases else []

        observations = wait_until(settled, f"{', '.join(sorted(service.phases))} of two and the end of one", timeout=60)
        assert [observation.cause for observation in observations[1:]] == [service.cause] * 2
        assert service.poll() == []

    @pytest.mark.parametrize("by", ["handle", "request"])
    def test_a_cancel_is_confirmed_and_may_be_repeated(self, service: BackendService, by: str) -> None:
        request = service.request("flow-f-1")
        handle = service.submit(request)
        named = (handle, None) if by == "handle" else (None, request)
        service.delete(*named)
        wait_until(lambda: [str(state.phase) for state in service.poll(handle)] == [_GONE], "its end", timeout=60)
        assert service.backend.cancel(*named)
        assert service.backend.cancel(handle, request)

    def test_a_cancel_of_nothing_is_confirmed_at_once(self, service: BackendService) -> None:
        assert service.backend.cancel(None, service.request("flow-g-1"))
        assert service.backend.cancel(None, None)
        assert service.created() == 0

    def test_a_handle_names_one_of_several_that_had_its_name(self, service: BackendService) -> None:
        request = service.request("flow-h-1")
        former = service.submit(request)
        service.delete(former, None)
        current = service.submit(request)
        assert current != former
        assert service.backend.cancel(former, None)
        assert str(service.poll(current)[0].phase) != _GONE

    def test_what_it_lists_is_of_one_installation(self, service: BackendService) -> None:
        orphans = getattr(service.backend, "orphans", None)
        if orphans is None:
            pytest.skip(f"backend {service.backend.name} has no method orphans: it isn't Listed")
        handle = service.submit(service.request(object_name("r1", 1)))
        service.submit(service.request(object_name("r2", 1), run_id="r2", instance="i2"))
        listed = wait_until(lambda: orphans("i1"), "the list")
        assert [(orphan.attempt, orphan.handle) for orphan in listed] == [(1, handle)]
        assert listed[0].age >= 0

    def test_workers_are_created_once_and_deleted_by_name(self, service: BackendService) -> None:
        count = _workers_created(service)
        backend = service.scaled(service.backend)
        request = service.request("flow-m-1")
        first = backend.first_workers(request)
        assert first
        assert first == tuple(f"w{number}" for number in range(1, len(first) + 1))
        assert backend.max_workers(request) >= len(first)
        handle = service.submit(request)
        names = [*first, f"w{len(first) + 1}"]
        service.create_workers(handle, request, first)
        service.create_workers(handle, request, names)
        service.create_workers(handle, request, names, backend=service.reopen())
        assert count() == len(names)
        wait_until(lambda: service.workers(handle) == names, f"the workers {', '.join(names)}", timeout=60)
        service.delete_workers(handle, first)
        wait_until(lambda: service.workers(handle) == names[-1:], "the end of the first workers", timeout=60)
        assert service.scaled(service.backend).delete_workers(handle, first), "a deletion may be repeated"
        service.create_workers(handle, request, first[:1])
        assert count() == len(names) + 1
        assert str(service.poll(handle)[0].phase) != _GONE

    def test_workers_end_with_their_attempt(self, service: BackendService) -> None:
        _workers_created(service)
        request, other = service.request("flow-n-1"), service.request("flow-n-2")
        handle, neighbour = service.submit(request), service.submit(other)
        for owner, of in ((handle, request), (neighbour, other)):
            service.create_workers(owner, of, ["w1", "w2"])
        wait_until(lambda: service.workers(handle) == ["w1", "w2"], "two workers", timeout=60)
        service.delete(handle, None)
        wait_until(lambda: service.workers(handle) == [], "no worker", timeout=60)
        assert service.scaled(service.backend).delete_workers(handle, ["w1", "w2"])
        wait_until(lambda: service.workers(neighbour) == ["w1", "w2"], "the other attempt's workers", timeout=60)
        service.delete(None, other)
        wait_until(lambda: service.workers(neighbour) == [], "no worker", timeout=60)

    def test_a_lost_reply_creates_nothing_twice(self, service: BackendService) -> None:
        if service.lose_reply is None:
            pytest.skip("BackendService.lose_reply isn't given: a lost reply isn't tested")
        with service.lose_reply():
            request = service.request("flow-j-1")
            with suppress(Transient):
                service.submit(request)
        handle = service.submit(request)
        assert service.created() == 1
        assert str(service.poll(handle)[0].phase) != _GONE

    def test_losing_sight_is_no_end(self, service: BackendService) -> None:
        if service.cut_off is None:
            pytest.skip("BackendService.cut_off isn't given: an unreachable service isn't tested")
        request = service.request("flow-k-1")
        handle = service.submit(request)
        with service.cut_off():
            another = service.reopen()
            assert str(another.poll([handle])[0].phase) in {"unknown", "unseen", "waiting"}
            with pytest.raises(Transient):
                another.submit(service.request("flow-k-2"), {})
            with pytest.raises(Transient):
                another.cancel(handle, None)
            assert another.unreachable()
        assert service.submit(request) == handle


def _workers_created(service: BackendService) -> Callable[[], int]:
    if service.workers_created is None:
        pytest.skip("BackendService.workers_created isn't given: its attempts have no workers")
    return service.workers_created
