"""The promises of docs/laptop.md: with nothing configured there is a server, and a worker on this machine."""

from __future__ import annotations

import os
import sys

from dispatcher import Dispatcher, LocalEnvironment, flow


@flow
def double(number: int) -> int:
    return 2 * number


if __name__ == "__main__":
    for name in [name for name in os.environ if name.startswith("DISPATCHER__")]:
        del os.environ[name]
    with Dispatcher() as client:
        result = client.submit(double, {"number": 21}, environment=LocalEnvironment()).result(timeout=60)
    sys.exit(None if result == 42 else f"the result was {result!r}")
