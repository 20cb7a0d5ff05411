"""The promises of docs/storage.md: a storage in a bucket, and a clear error where its service doesn't answer."""

from __future__ import annotations

import os
import sys

from dispatcher import MissingExtra, S3Storage, ServerUnavailable, flow


@flow
def double(number: int) -> int:
    return 2 * number


if __name__ == "__main__":
    os.environ |= {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing", "AWS_DEFAULT_REGION": "eu-west-1"}
    storage = S3Storage("flows", endpoint_url="http://127.0.0.1:1")
    try:
        storage.add_flow(double)
    except MissingExtra:
        raise
    except ServerUnavailable as error:
        sys.exit(None if "bucket flows at http://127.0.0.1:1 doesn't answer" in str(error) else str(error))
    sys.exit("it stored a flow where nobody answers")
