"""Tasks on a Dask cluster share their run's context, log and end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatcher import DaskExecutor, Dispatcher, RemoteEnvironment, Run, context, flow, gather, task
from dispatcher.errors import CancelInterrupt
from dispatcher.runner.process_state import leftovers
from dispatcher.settings import LimitSettings, Settings
from tests.conftest import PYTHON
from tests.dask_cluster import cluster
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
OWN = {"n_workers": 1, "threads_per_worker": 2}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with cluster(tmp_path_factory.mktemp("dask")) as address:
        yield address


@pytest.fixture(params=["address", "own processes", "own threads"])
def where(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == "address":
        return {"address": request.getfixturevalue("address")}
    return {"cluster_kwargs": {**OWN, "processes": request.param == "own processes"}}


@task
def talks(word: str) -> Any:
    print("one", word)  # noqa: T201
    sys.stdout.write("two ")
    sys.stdout.write(f"{word}\n")
    print("three", word, file=sys.stderr)  # noqa: T201
    logging.getLogger("library").debug("four %s", word)
    logging.getLogger("library").log(5, "not asked for")
    context.logger.info("five %s", word)
    logging.getLogger("other").debug("not asked for")
    logging.getLogger().warning("six \ud800 %s", word)
    print("seven", word, end="")  # noqa: T201
    if word == "fails":
        raise ValueError(word)
    return context.run_id, context.attempt, context.flow, context.labels, context.tags, dict(context.parameters)


@flow(tags=["t1", "t2"])
def conversation(words: list[str]) -> Any:
    logging.getLogger("library").setLevel("DEBUG")
    try:
        return gather(talks.map(words))
    finally:
        logging.getLogger("library").setLevel("NOTSET")


def said(run: Run[Any], word: str) -> list[tuple[str, str, str]]:
    return [(line.stream, line.level, line.text) for line in run.logs() if line.text.endswith(word)]


def all_of(word: str) -> list[tuple[str, str, str]]:
    return [
        ("stdout", "", f"one {word}"),
        ("stdout", "", f"two {word}"),
        ("stderr", "", f"three {word}"),
        ("log", "DEBUG", f"library: four {word}"),
        ("log", "INFO", f"five {word}"),
        ("log", "WARNING", f"six \\ud800 {word}"),
        ("stdout", "", f"seven {word}"),
    ]


def test_lines_arrive_in_order_and_tasks_have_the_run_s_context(where: dict[str, Any]) -> None:
    with Dispatcher("memory://") as client:
        words = ["Ada", "Bob"]
        run = client.submit(conversation, {"words": words}, environment=RemoteEnvironment(DaskExecutor, where, ["x"]))
        context_of_run = (run.id, 1, "conversation", ("x",), ("t1", "t2"), {"words": words})
        assert run.result() == [context_of_run, context_of_run]
        assert said(run, "Ada") == all_of("Ada")
        assert said(run, "Bob") == all_of("Bob")
        assert not [line for line in run.logs() if "not asked for" in line.text]
        failed = client.submit(conversation, {"words": ["fails"]}, environment=RemoteEnvironment(DaskExecutor, where))
        assert failed.state == "FAILED"
        assert said(failed, "fails")[:7] == all_of("fails")


@task
def raises(error: BaseException) -> None:
    raise error


@flow
def sums_up_errors(errors: list[BaseException]) -> Any:
    """Return the text of what each task raised; the cluster goes on."""
    texts = []
    for error in errors:
        try:
            raises.submit(error).result(timeout=30)
        except Exception as raised:
            texts.append(f"{type(raised).__name__}: {raised}")
    return texts


def test_a_task_that_raises_no_exception_has_failed(where: dict[str, Any]) -> None:
    """Dask itself would end its workers, or leave the flow waiting."""
    errors = [SystemExit(3), KeyboardInterrupt(), GeneratorExit("g"), CancelInterrupt(), asyncio.CancelledError("c")]
    with Dispatcher("memory://") as client:
        run = client.submit(sums_up_errors, {"errors": errors}, environment=RemoteEnvironment(DaskExecutor, where))
        said = [
            f"RuntimeError: the task raised {what}, which is no Exception"
            for what in ("SystemExit(3)", "KeyboardInterrupt()", "GeneratorExit(g)", "CancelInterrupt()")
        ]
        assert run.result() == [*said, "RuntimeError: the task raised CancelledError(c), which is no Exception"]


def test_tasks_receive_large_parameters(address: str) -> None:
    @task
    def length() -> int:
        return len(context.parameters["text"])

    @flow
    def measures(text: str) -> Any:
        return length.submit()

    with Dispatcher("memory://") as client:
        where = RemoteEnvironment(DaskExecutor, {"address": address})
        assert client.submit(measures, {"text": "x" * 100_000}, environment=where).result() == 100_000


def test_a_worker_is_restored_and_sends_no_more_than_the_run_s_limit(address: str) -> None:
    @task
    def floods() -> None:
        for number in range(2000):
            print(f"line {number} " + "x" * 100)  # noqa: T201

    @task
    def looks() -> Any:
        return type(sys.stdout).__name__, logging.getLogger("library").level

    @flow
    def both() -> Any:
        gather(floods.submit())
        return looks.submit()

    def here() -> Any:
        return type(sys.stdout).__module__, logging.root.level, len(logging.root.handlers)

    settings = Settings.load(url="memory://", limits=LimitSettings(log=20_000))
    with DaskExecutor(address).start(), Dispatcher(settings=settings) as client:
        import distributed

        plain = distributed.get_client().run(here)
        run = client.submit(both, environment=RemoteEnvironment(DaskExecutor, {"address": address}))
        assert run.result() == ("_Stream", 0)
        assert distributed.get_client().run(here) == plain
        lines = [line.text for line in run.logs()]
    assert sum(map(len, lines)) < 45_000
    assert any("lines are missing" in text for text in lines)
    assert any(text.startswith("line 1999 ") for text in lines)


STRANGER = """
    import sys, time
    from pathlib import Path
    from dispatcher import DaskExecutor, flow, gather, task

    @task
    def talks(name, number, other, mine):
        Path(mine).touch()
        while not Path(other).exists():
            time.sleep(0.01)
        for _ in range(20):
            print(f"{name} says {number}")  # noqa: T201

    @flow
    def main(address, name, mine, other):
        gather(talks.submit(name, 0, other, mine))
        gather(talks.map([name] * 2, [1, 2], other=other, mine=mine))

    if __name__ == "__main__":
        address, name, mine, other = sys.argv[1:]
        main.run({"address": address, "name": name, "mine": mine, "other": other}, DaskExecutor(address))
"""


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts a user's program."""
    started: list[subprocess.Popen[str]] = []

    def begin(source: str, *arguments: str) -> subprocess.Popen[str]:
        program = tmp_path / "program.py"
        program.write_text(textwrap.dedent(source))
        started.append(
            subprocess.Popen(
                [PYTHON, str(program), *arguments], stdout=subprocess.PIPE, text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        )  # fmt: skip
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def test_runs_on_one_worker_receive_only_their_own_lines(address: str, start: Start, tmp_path: Path) -> None:
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    programs = {"Ada": start(STRANGER, address, "Ada", a, b), "Bob": start(STRANGER, address, "Bob", b, a)}
    for name, program in programs.items():
        lines = program.communicate(timeout=60)[0].splitlines()
        assert sorted(lines) == sorted(f"{name} says {number}" for number in range(3) for _ in range(20))


def loops(folder: str, number: int) -> None:
    """Run until interrupted."""
    begun = Path(folder) / f"begun{number}"
    begun.touch()
    try:
        while True:
            time.sleep(0.01)
    finally:
        print("ended", number)  # noqa: T201
        begun.rename(Path(folder) / f"ended{number}")


async def sleeps(folder: str, number: int) -> None:
    """Wait in the event loop."""
    import asyncio

    begun = Path(folder) / f"begun{number}"
    begun.touch()
    try:
        await asyncio.sleep(300)
    finally:
        print("ended", number)  # noqa: T201
        begun.rename(Path(folder) / f"ended{number}")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("endless", [loops, sleeps])
def test_the_end_of_a_flow_ends_its_own_tasks_only(address: str, tmp_path: Path, endless: Any) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    mine.mkdir()
    theirs.mkdir()

    @flow
    def gives_up() -> None:
        futures = task(endless).map([str(mine)] * 5, range(5))
        wait_until(lambda: names(mine), "a task", timeout=30)
        raise RuntimeError(f"no patience for {len(futures)} tasks")

    stranger = DaskExecutor(address)
    with stranger.start(), Dispatcher("memory://") as client:
        other = stranger.submit(endless, str(theirs), 0)
        wait_until(lambda: names(theirs) == ["begun0"], "the other run's task", timeout=30)
        run = client.submit(gives_up, environment=RemoteEnvironment(DaskExecutor, {"address": address}))
        assert run.state == "FAILED"
        ended = names(mine)
        assert ended
        assert all(name.startswith("ended") for name in ended), "all that had begun has ended with the run"
        numbers = {name[-1] for name in ended}
        assert {line.text[-1] for line in run.logs() if line.text.startswith("ended ")} == numbers
        assert not other.done()
        assert names(theirs) == ["begun0"]
        assert stranger.submit(names, mine).result(timeout=20) == ended, "its place is free, and no other has begun"
    wait_until(lambda: names(theirs) == ["ended0"], "the other run's task to end with its run")


KILLED = """
    import sys
    from dispatcher import DaskExecutor, flow, gather, task
    from tests.conformance.test_dask_tasks import loops

    @flow
    def main(folder):
        gather(task(loops).map([folder] * 4, range(4)))

    if __name__ == "__main__":
        executor = {"address": sys.argv[2]} if len(sys.argv) > 2 else {"cluster_kwargs": {"n_workers": 1}}
        main.run({"folder": sys.argv[1]}, DaskExecutor(**executor))
"""


def test_a_killed_flow_s_tasks_end(address: str, start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "marks"
    folder.mkdir()
    with DaskExecutor(address).start():
        program = start(KILLED, str(folder), address)
        wait_until(lambda: len(names(folder)) == 2, "two tasks in two threads", timeout=60)
        program.send_signal(signal.SIGKILL)
        wait_until(lambda: all(name.startswith("ended") for name in names(folder)), "both to end", timeout=20)
        import distributed

        client = distributed.get_client()
        wait_until(lambda: not any(client.processing().values()), "a worker without tasks", timeout=20)
        assert len(names(folder)) == 2, "those that waited never began"


def test_a_thread_that_runs_a_task_counts_as_the_flow_s() -> None:
    executor = DaskExecutor(cluster_kwargs={**OWN, "processes": False})
    with executor.start():
        assert any("Dask-" in name for name in executor.submit(leftovers.threads).result(timeout=30))
        wait_until(lambda: not any("Dask-" in name for name in leftovers.threads()), "it to be idle", timeout=20)
