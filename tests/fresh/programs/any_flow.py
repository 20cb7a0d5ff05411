"""A run of LocalEnvironment, submitted to the server that the variables name."""

from __future__ import annotations

import sys

from dispatcher import Dispatcher, LocalEnvironment, flow


@flow
def double(number: int) -> int:
    return 2 * number


if __name__ == "__main__":
    with Dispatcher() as client:
        result = client.submit(double, {"number": 21}, environment=LocalEnvironment()).result(timeout=60)
    sys.exit(None if result == 42 else f"the result was {result!r}")
