"""Flows that run in pods. What they did is counted in a server of the test's own, apart from our records."""

from __future__ import annotations

from dispatcher import context, flow


def note(what: str) -> None:
    """Count something of this run."""
    import os

    import redis

    with redis.Redis.from_url(os.environ["LEDGER"]) as ledger:
        ledger.incr(f"{context.run_id}:{what}")


def say_goodbye() -> None:
    """An ``on_exit``."""
    note(f"on_exit {context.state}")


@flow
def add(a: int, b: int) -> int:
    """Prints, logs, adds."""
    note("ran")
    print("printed", a)  # noqa: T201 - what it prints is what is tested
    context.logger.info("logged %s", b)
    return a + b


@flow
def fail() -> None:
    """Raises."""
    raise ValueError("no such luck")


@flow
def hold(seconds: float) -> str:
    """Sleeps, and may be interrupted."""
    import time

    note("ran")
    time.sleep(seconds)
    note("held")
    return "held"


@flow
def eat() -> int:
    """Takes memory until there is none."""
    taken = []
    print("hungry")  # noqa: T201 - as above
    while True:
        taken.append(bytearray(b"x" * 2**22))


@flow
def feed_a_pool(careful: bool) -> str:
    """A process of its own pool takes memory until there is none; a careful flow goes on without it."""
    import operator
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    note("ran")
    with ProcessPoolExecutor(1) as pool:
        try:
            pool.submit(operator.mul, b"x", 2**30).result()
        except BrokenProcessPool:
            if not careful:
                raise
            return "went on"
    return "fed"


@flow
def leave(code: int) -> None:
    """Ends its process without a word."""
    import os

    print("leaving", flush=True)  # noqa: T201 - as above
    os._exit(code)


@flow
def count_in_c() -> int:
    """Hears no signal: the sum is one call."""
    note("ran")
    return sum(range(10**12))


@flow
def fill(megabytes: int) -> str:
    """Writes more to its disk than it may, and waits."""
    import time
    from pathlib import Path

    Path("/tmp/full").write_bytes(b"x" * megabytes * 2**20)
    time.sleep(300)
    return "kept"


def _is_secret(name: str) -> bool:
    return any(word in name for word in ("KEY", "SEAL", "TOKEN", "URL"))


@flow
def whoami() -> dict[str, object]:
    """What a flow sees of its pod."""
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
def at_the_second_try(seconds: float) -> int:
    """Its first attempt sleeps."""
    import time

    note(f"attempt {context.attempt}")
    if context.attempt == 1:
        time.sleep(seconds)
    return context.attempt or 0


@flow
def where_it_lies() -> dict[str, object]:
    """Check whether its code is in its image."""
    import os
    from pathlib import Path

    return {"greeting": os.environ.get("GREETING"), "image": any(Path("/opt/flows").iterdir())}
