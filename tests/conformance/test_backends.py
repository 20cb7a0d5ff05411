"""What every backend keeps to. A new one adds a :class:`Place`; those in the worker's pool are asked for nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from backends.base import Backend, Handle, Observation, Phase, Request
from backends.fake import FakeBackend, FakeEnvironment
from backends.kubernetes.backend import KubernetesBackend
from backends.kubernetes.settings import ClusterSettings, KubernetesSettings
from dispatcher import Cause, KubernetesJobEnvironment, LocalEnvironment, RemoteEnvironment, Settings, registry
from dispatcher.environments.base import Environment
from dispatcher.errors import Permanent
from dispatcher.runs.attempt import Attempt
from tests.waiting import wait_until

SECRET = "a canary that nobody may see"


@dataclass
class Place:
    """A backend with infrastructure, in a service of its own, and an environment whose container waits for ever."""

    backend: Backend
    environment: Environment
    created: Callable[[], int]  #: the service's own account of how many it made
    another: Callable[[], Backend]  #: the same backend in another process
    attempts: dict[str, Attempt] = field(default_factory=dict)

    def attempt(self, name: str, **changed: Any) -> Attempt:
        return replace(
            Attempt(
                run_id="r1",
                number=1,
                name=name,
                instance="i1",
                shard="s1",
                environment=self.environment.to_json(),
                variables={"DISPATCHER__RUN__ID": "r1", "DISPATCHER__RUN__ATTEMPT": "1"},
            ),
            **changed,
        )

    def submit(self, request: Request) -> Handle:
        return self.backend.submit(request, {"DISPATCHER__RUN__TOKEN": SECRET})

    def look(self, *handles: Handle) -> list[Observation]:
        return self.backend.poll(handles)


@pytest.fixture(params=["fake", "kubernetes"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    yield from (_fake if request.param == "fake" else _kubernetes)(tmp_path)


def _kubernetes(tmp_path: Path) -> Iterator[Place]:
    """An API server in this process, and a node on which no image can be pulled."""
    pytest.importorskip("kubernetes")
    from tests.kubernetes_api import FakeApiServer, kubeconfig

    with FakeApiServer() as serving:
        kubernetes = KubernetesSettings(
            clusters={"it": ClusterSettings(kubeconfig=kubeconfig(tmp_path, serving.port))}, url="redis://r.svc/0"
        )
        settings = Settings.load(kubernetes=kubernetes)
        cluster = serving.cluster
        waiting = {"waiting": {"reason": "ErrImagePull", "message": "no route to the registry"}}
        cluster.on_job = lambda job: cluster.add_pod(
            job, phase="Pending", containerStatuses=[{"name": "flow", "state": waiting}]
        )
        made: list[KubernetesBackend] = []

        def again() -> KubernetesBackend:
            made.append(KubernetesBackend(settings))
            return made[-1]

        yield Place(
            again(),
            KubernetesJobEnvironment(),
            lambda: sum(one[1:3] == ("ADDED", "jobs") for one in cluster.history),
            again,
        )
        for one in made:
            one.close()


def _fake(tmp_path: Path) -> Iterator[Place]:
    ledger = tmp_path / "ledger.jsonl"

    def created() -> int:
        return ledger.read_text().count('"created"') if ledger.exists() else 0

    one = Place(FakeBackend(), FakeEnvironment(tmp_path, "image_pull"), created, FakeBackend)
    yield one
    for file in tmp_path.glob("*.json"):
        file.with_suffix(".deleted").touch()
    wait_until(lambda: not list(tmp_path.glob("*.json")), "an empty service")
    one.backend.close()


@pytest.mark.parametrize("environment", [LocalEnvironment, RemoteEnvironment])
def test_backends_in_the_workers_pool_have_no_infrastructure(environment: type[Environment]) -> None:
    backend = registry.backend(environment.backend)()
    assert backend.name == environment.backend
    assert backend.in_process
    attempt = Attempt(run_id="r", number=1, name="n", instance="i", shard="s", environment={}, variables={})
    calls: list[Callable[[], object]] = [
        lambda: backend.prepare(attempt),
        lambda: backend.submit({}, {}),
        lambda: backend.poll([{}]),
        lambda: backend.cancel({}, None),
    ]
    for call in calls:
        with pytest.raises(NotImplementedError, match="has no infrastructure"):
            call()
    backend.close()


def test_it_is_registered_under_its_name(place: Place) -> None:
    assert registry.backend(place.environment.backend) is type(place.backend)
    assert place.backend.name == place.environment.backend
    assert not place.backend.in_process


def test_a_request_is_pure_and_json(place: Place) -> None:
    attempt = place.attempt("flow-a-1")
    request = place.backend.prepare(attempt)
    assert json.loads(json.dumps(request)) == request
    assert place.backend.prepare(attempt) == request, "the same attempt is the same request"
    assert place.backend.prepare(place.attempt("flow-a-2", number=2)) != request
    assert place.created() == 0


def test_the_same_request_is_carried_out_once(place: Place) -> None:
    request = json.loads(json.dumps(place.backend.prepare(place.attempt("flow-b-1"))))
    handle = place.submit(request)
    assert json.loads(json.dumps(handle)) == handle
    assert place.submit(request) == handle, "the second call adopts what the first one made"
    assert place.another().submit(request, {}) == handle, "another worker's, too: a backend remembers nothing"
    assert place.created() == 1
    assert SECRET not in json.dumps([request, handle])


def test_what_others_made_is_not_taken(place: Place) -> None:
    place.submit(place.backend.prepare(place.attempt("flow-c-1")))
    with pytest.raises(Permanent) as caught:
        place.submit(place.backend.prepare(place.attempt("flow-c-1", run_id="r2", instance="others")))
    assert caught.value.cause is Cause.START_FAILED
    assert place.created() == 1


def test_many_are_looked_at_in_the_order_given(place: Place) -> None:
    first, second = (place.submit(place.backend.prepare(place.attempt(f"flow-d-{number}"))) for number in (1, 2))
    never = {**first, "name": "flow-never-1", "uid": "none"}

    def settled() -> list[Observation]:
        found = place.look(second, never, first)
        return found if [one.phase for one in found] == [Phase.WAITING, Phase.GONE, Phase.WAITING] else []

    seen = wait_until(settled, "what the service knows")
    assert seen[0].cause is Cause.IMAGE_PULL
    assert place.look() == []


@pytest.mark.parametrize("known", ["handle", "request"])
def test_a_cancel_is_confirmed_and_may_come_again(place: Place, known: str) -> None:
    request = place.backend.prepare(place.attempt("flow-e-1"))
    handle = place.submit(request)
    named = (handle, None) if known == "handle" else (None, request)
    wait_until(lambda: place.backend.cancel(*named), "confirmation")
    wait_until(lambda: [one.phase for one in place.look(handle)] == [Phase.GONE], "its end")
    assert place.backend.cancel(*named)
    assert place.backend.cancel(handle, request)


def test_nothing_to_cancel_is_confirmed_at_once(place: Place) -> None:
    assert place.backend.cancel(None, place.backend.prepare(place.attempt("flow-f-1")))
    assert place.backend.cancel(None, None)
    assert place.created() == 0
