"""The promises of docs/storage.md: a storage that builds images, and a clear error where there is no Docker engine."""

from __future__ import annotations

import sys

from dispatcher import DockerStorage, InvalidInput, MissingExtra, flow


@flow
def double(number: int) -> int:
    return 2 * number


if __name__ == "__main__":
    storage = DockerStorage(base_url="unix:///nowhere/docker.sock")
    storage.add_flow(double)
    try:
        storage.build()
    except MissingExtra:
        raise
    except InvalidInput as error:
        sys.exit(None if "no Docker engine answers at unix:///nowhere/docker.sock" in str(error) else str(error))
    sys.exit("it built an image without an engine")
