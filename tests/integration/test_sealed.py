"""Pickles are opened only if sealed, and only by their consumers: results as their callers ask for them, files as the
command line reads them; on a real server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from backends.fake import FakeEnvironment
from dispatcher import Cause, Dispatcher, FlowFailed, InvalidInput, LocalEnvironment, Run, State, context, flow
from dispatcher.runner.container.report import ReportKind
from dispatcher.runs.outcome import ExitCall, Outcome
from tests.integration.shells import Shell
from tests.integration.stand_ins import ThreadWorker
from tests.integration.test_cli import shell, worker
from tests.integration.test_client import add, client, fail, settings, thread_worker
from tests.integration.test_supervisor import StartWorker, importable, start
from tests.integration.workers import Bench, Worker

__all__ = ["client", "settings", "shell", "thread_worker", "worker"]

pytestmark = [pytest.mark.integration, pytest.mark.row(34), pytest.mark.filterwarnings("ignore:No live worker")]


class Trap:
    """Creates a file when it is opened."""

    def __init__(self, file: str) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (Path(self.file),)


@flow
def trap(file: str) -> Any:
    return Trap(file)


class TrapError(Exception):
    """The same as an exception."""

    def __init__(self, file: str) -> None:
        super().__init__("a trap")
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (Path(self.file),)


@flow
def reports_its_own_death(file: str, more: Any) -> None:
    """Seal an exception with the process's own credentials, report a death by it, and die."""
    import gc

    held = {
        type(thing).__name__: thing
        for thing in gc.get_objects()
        if type(thing).__name__ in {"AttemptRunner", "Invocation"}
    }
    exception = held["Invocation"].to_value(TrapError(file), "the exception")
    outcome = Outcome(cause=Cause.USER_ERROR, reason="TrapError", message="a trap", exception=exception)
    held["AttemptRunner"]._report(ReportKind.DIED, outcome)
    os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def say_what_it_sees() -> None:
    """Write the context, as an ``on_exit`` that the worker calls."""
    Path(os.environ["TOLD"]).write_text(f"{context.state} {context.exception!r} {dict(context.parameters)}")


async def result_of(run: Run[Any]) -> Any:
    return await run


def test_plain_opens_no_pickle(
    client: Dispatcher, thread_worker: ThreadWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the argument, or by the setting for a whole program; the argument has precedence."""
    file = tmp_path / "opened"
    plain, odd, failed = client.submit(add, {"a": 1}), client.submit(trap, {"file": str(file)}), client.submit(fail)
    client.wait([plain, odd, failed], timeout=20)
    assert plain.result(plain=True) == 3
    assert odd.exception(plain=True) is None
    with pytest.raises(InvalidInput, match=rf"result of run {odd.id} isn't JSON .*: plain=True refuses"):
        odd.result(plain=True)
    refused = failed.exception(plain=True)
    assert refused is not None
    assert refused.__cause__ is None
    assert "LookupError: nothing there" in str(refused)
    assert "in fail" in refused.traceback
    monkeypatch.setenv("DISPATCHER__RESULTS__PLAIN", "true")
    with Dispatcher() as careful:
        assert careful.get(plain.id).result() == 3
        with pytest.raises(InvalidInput, match=r"DISPATCHER__RESULTS__PLAIN refuses that.*result\(plain=False\)"):
            careful.get(odd.id).result()
        with pytest.raises(InvalidInput, match="DISPATCHER__RESULTS__PLAIN refuses that"):
            asyncio.run(result_of(careful.get(odd.id)))
        with pytest.raises(FlowFailed) as caught:
            careful.get(failed.id).result()
        assert caught.value.__cause__ is None
        assert "DISPATCHER__RESULTS__PLAIN" in "".join(caught.value.__notes__)
        assert [run.id for run in careful.as_completed([careful.get(odd.id)], timeout=20)] == [odd.id]
        assert not file.exists()
        careful.get(odd.id).result(plain=False)
        assert file.exists()


def test_sealed_code_in_a_file_is_not_signed_unseen(shell: Shell, worker: Worker) -> None:
    mark = shell.cwd / "ran"

    def theirs() -> None:
        mark.touch()

    environment = LocalEnvironment(on_exit=theirs)
    text = json.dumps(environment.to_json())
    assert '"sealed"' in text
    (shell.cwd / "theirs.json").write_text(text)
    arguments = ("flows:greet", "-p", "name=x", "--environment", "theirs.json")
    for command in ("run", "submit", "render"):
        done = shell(command, *arguments, code=2)
        assert "theirs.json holds sealed code (on_exit), which your key would sign" in done.stderr
    assert shell.json("list") == []
    assert not mark.exists()
    shell.json("run", *arguments, "--allow-sealed")
    assert mark.exists()


def test_a_worker_opens_nothing_that_a_container_sealed(
    bench: Bench, start_worker: StartWorker, service: Path, tmp_path: Path
) -> None:
    """A container has the key that seals its attempt's outcome. The worker that calls ``on_exit`` in its place opens
    neither the exception nor, for a run in a container, the parameters."""
    path, file = tmp_path / "told", tmp_path / "opened"
    timing = {"poll": 0.2, "on_exit_timeout": 20.0}
    start(start_worker, timing=timing, environ={"TOLD": str(path)}, callbacks=[__name__])
    environment = FakeEnvironment(service, on_exit=importable(say_what_it_sees))
    parameters = {"file": str(file), "more": (1, 2)}
    run_id = bench.submit(reports_its_own_death, parameters, environment=environment)
    record = bench.ended(run_id)
    assert (record.state, record.exit_call) == (State.FAILED, ExitCall.CALLED)
    assert record.outcome is not None
    assert record.outcome.exception is not None
    assert path.read_text() == "FAILED FlowFailed('TrapError: a trap') {}"
    assert not file.exists()
