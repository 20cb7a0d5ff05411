"""The promises of docs/environments.md: a flow's tasks run on a Dask cluster."""

from __future__ import annotations

import sys

from dispatcher import DaskExecutor, Dispatcher, RemoteEnvironment, flow, gather, task


@task
def length(word: str) -> int:
    return len(word)


@flow
def longest(words: list[str]) -> int:
    return max(gather(length.map(words)))


if __name__ == "__main__":
    with Dispatcher() as client:
        run = client.submit(
            longest, {"words": ["flow", "dispatcher"]}, environment=RemoteEnvironment(executor=DaskExecutor)
        )
        result = run.result(timeout=90)
    sys.exit(None if result == 10 else f"the result was {result!r}")
