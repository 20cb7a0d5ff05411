"""The cache in front of the blobs: bytes are sent once, and again in time or when the server has lost them."""

from __future__ import annotations

from typing import Any

from dispatcher.records.memory import open_memory
from dispatcher.submission import blob_cache
from dispatcher.submission.blob_cache import RESEND_AFTER, BlobCache


class CountingBlobs:
    """The blobs of memory records, with the bytes that were shared."""

    def __init__(self) -> None:
        self.blobs = open_memory().blobs
        self.shared: list[bytes] = []

    def share(self, data: bytes, digest: str = "") -> str:
        self.shared.append(data)
        return self.blobs.share(data, digest)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.blobs, name)


class Clock:
    """Seconds that only a test advances."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def cached(blobs: Any, clock: Clock | None = None) -> BlobCache:
    return BlobCache(blobs, clock or Clock())


def test_bytes_are_sent_once_and_found() -> None:
    blobs = CountingBlobs()
    cache = cached(blobs)
    names = {cache.share(b"code"), cache.share(b"code")}
    assert blobs.shared == [b"code"]
    [name] = names
    assert cache.has(name)
    assert cache.get(name) == b"code"


def test_they_are_sent_again_before_the_server_drops_them() -> None:
    blobs, clock = CountingBlobs(), Clock()
    cache = cached(blobs, clock)
    cache.share(b"code")
    clock.now = RESEND_AFTER - 1
    cache.share(b"code")
    assert len(blobs.shared) == 1
    clock.now = RESEND_AFTER
    cache.share(b"code")
    assert len(blobs.shared) == 2


def test_they_are_sent_again_if_the_server_has_lost_them() -> None:
    blobs = CountingBlobs()
    cache = cached(blobs)
    cache.share(b"code")
    cache.forget()
    cache.share(b"code")
    assert len(blobs.shared) == 2


def test_memory_is_bounded() -> None:
    blobs = CountingBlobs()
    cache = cached(blobs)
    for number in range(blob_cache.MOST_REMEMBERED + 2):
        cache.share(b"%d" % number)
    assert len(cache._sent) == 1
