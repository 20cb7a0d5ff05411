"""Requests of a supervisor: their threads, the pauses between them, and the handlers of their answers."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from dispatcher.errors import ServerUnavailable, Transient
from tests.waiting import wait_until
from workers.supervisor.backend_requests import BackendRequests
from workers.supervisor.request_threads import RequestThreads

KEY = ("creation", "r1", 1)


def test_request_threads_never_run_two_calls_of_a_key_concurrently() -> None:
    woken = threading.Semaphore(0)
    threads = RequestThreads(2, woken.release)
    hold = threading.Event()
    assert threads.submit(("a", "1"), lambda: hold.wait(30))
    assert not threads.submit(("a", "1"), lambda: None)
    assert threads.submit(("b", "1"), lambda: 1 / 0)
    assert woken.acquire(timeout=30)
    ((key, error),) = threads.results()
    assert (key, type(error)) == (("b", "1"), ZeroDivisionError)
    assert threads.is_pending(("a", "1"))
    hold.set()
    assert woken.acquire(timeout=30)
    assert threads.results() == [(("a", "1"), True)]
    assert not threads.is_pending(("a", "1"))
    threads.shutdown()


@pytest.fixture
def answered() -> threading.Semaphore:
    return threading.Semaphore(0)


@pytest.fixture
def requests(answered: threading.Semaphore) -> BackendRequests:
    return BackendRequests(RequestThreads(2, answered.release), pause=60.0)


def busy() -> None:
    raise Transient("busy", retry_in=0.01)


def test_a_handler_gets_the_answer(requests: BackendRequests, answered: threading.Semaphore) -> None:
    answers: list[Any] = []
    requests.submit(KEY, lambda: "handle", answers.append)
    requests.submit(KEY, lambda: "another", answers.append)
    assert requests.is_pending(KEY)
    assert answered.acquire(timeout=30)
    assert not requests.is_due(KEY), "the answer was not handled yet"
    requests.handle_answers()
    assert answers == ["handle"]


def test_a_key_is_due_again_after_its_pause(requests: BackendRequests, answered: threading.Semaphore) -> None:
    for key, call, pause in ((KEY, bool, None), (("a", "1"), bool, 0.01), (("b", "1"), busy, None)):
        assert requests.is_due(key)
        requests.submit(key, call, pause=pause)
        assert answered.acquire(timeout=30)
    requests.handle_answers()
    wait_until(lambda: requests.is_due(("a", "1")), "the caller's pause")
    wait_until(lambda: requests.is_due(("b", "1")), "the pause that the service asked for")
    assert not requests.is_due(KEY)


def test_a_handler_that_fails_affects_no_other(requests: BackendRequests, answered: threading.Semaphore) -> None:
    answers: list[Any] = []

    def fail(answer: Any) -> None:
        raise ValueError("handler")

    for number, handler in enumerate((fail, answers.append)):
        requests.submit(("creation", "r1", number), lambda: True, handler)
        assert answered.acquire(timeout=30)
    requests.handle_answers()
    assert answers == [True]


def test_an_outage_reaches_the_caller(requests: BackendRequests, answered: threading.Semaphore) -> None:
    def fail(answer: Any) -> None:
        raise ServerUnavailable("unavailable")

    requests.submit(KEY, lambda: True, fail)
    assert answered.acquire(timeout=30)
    with pytest.raises(ServerUnavailable):
        requests.handle_answers()
    requests.submit(KEY, lambda: True)
    assert requests.is_pending(KEY), "it can be repeated"
