"""Flows that run in pods. They count events in a Redis database of the tests, apart from the records."""

from __future__ import annotations

from dispatcher import context, flow


def count(event: str) -> None:
    """Count an event of this run."""
    import os

    import redis

    with redis.Redis.from_url(os.environ["LEDGER"]) as ledger:
        ledger.incr(f"{context.run_id}:{event}")


def count_on_exit() -> None:
    """Count the call of ``on_exit``, with the state."""
    count(f"on_exit {context.state}")


@flow
def add(a: int, b: int) -> int:
    """Print, log and add."""
    count("ran")
    print("printed", a)  # noqa: T201 - what it prints is what is tested
    context.logger.info("logged %s", b)
    return a + b


@flow
def fail() -> None:
    """Raise an error."""
    raise ValueError("no such luck")


@flow
def sleep(seconds: float) -> str:
    """Sleep; may be interrupted."""
    import time

    count("ran")
    time.sleep(seconds)
    count("held")
    return "held"


@flow
def exhaust_memory() -> int:
    """Allocate memory until there is none."""
    blocks = []
    print("hungry")  # noqa: T201 - as above
    while True:
        blocks.append(bytearray(b"x" * 2**22))


@flow
def exhaust_pool_memory(careful: bool) -> str:
    """Exhaust the memory in a process of the flow's own pool; a careful flow continues without it."""
    import operator
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    count("ran")
    with ProcessPoolExecutor(1) as pool:
        try:
            pool.submit(operator.mul, b"x", 2**30).result()
        except BrokenProcessPool:
            if not careful:
                raise
            return "went on"
    return "fed"


@flow
def exit_process(code: int) -> None:
    """End the process without a report."""
    import os

    print("leaving", flush=True)  # noqa: T201 - as above
    os._exit(code)


@flow
def count_in_c() -> int:
    """Compute a sum in one C call, during which no signal is handled."""
    count("ran")
    return sum(range(10**12))


@flow
def fill_disk(megabytes: int) -> str:
    """Write more to the disk than allowed, and wait."""
    import time
    from pathlib import Path

    Path("/tmp/full").write_bytes(b"x" * megabytes * 2**20)
    time.sleep(300)
    return "kept"


def _is_secret(name: str) -> bool:
    return any(word in name for word in ("KEY", "SEAL", "TOKEN", "URL"))


@flow
def whoami() -> dict[str, object]:
    """Return what a flow can see of its pod."""
    import os
    import sys
    from pathlib import Path

    return {
        "uid": os.getuid(),
        "python": sys.version_info[:2],
        "token": Path("/var/run/secrets/kubernetes.io").exists(),
        "shared": Path("/shared/word").read_text() if Path("/shared/word").exists() else None,
        "greeting": os.environ.get("GREETING"),
        "run": os.environ.get("DISPATCHER__RUN__ID"),
        "secrets": sorted(name for name in os.environ if name.startswith("DISPATCHER__") and _is_secret(name)),
    }


@flow
def succeed_on_retry(seconds: float) -> int:
    """Sleep in the first attempt only; return the attempt's number."""
    import time

    count(f"attempt {context.attempt}")
    if context.attempt == 1:
        time.sleep(seconds)
    return context.attempt or 0


@flow
def code_location() -> dict[str, object]:
    """Return True for ``image`` if the flow's code is in its image."""
    import os
    from pathlib import Path

    return {"greeting": os.environ.get("GREETING"), "image": any(Path("/opt/flows").iterdir())}
