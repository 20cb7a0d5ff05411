"""Counts the requests that a client makes of the API server: a proxy before it, in a process of its own.

Speaks plain HTTP to the client and lends it the user of ``KUBECONFIG``. Answers pass through unread; of requests the
first line is. ``GET /counted`` gives the counts, which :func:`counts` reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.cluster import Access
from benchmarks.machine import child, until

_PLACE = re.compile(r"/namespaces/[^/]+/(?P<kind>[^/]+)(?:/[^/]+(?P<below>/[^/]+)?)?$")


@contextlib.contextmanager
def counting(folder: Path) -> Iterator[tuple[str, Path]]:
    """The proxy's address, and a kubeconfig that leads there."""
    config, log = folder / "counted.kubeconfig", folder / "counter.log"
    command = [sys.executable, "-P", "-m", "benchmarks.request_counter", str(config)]
    with child(command, log=log):
        until(config.exists, "the counting proxy")
        yield json.loads(config.read_text())["clusters"][0]["cluster"]["server"], config


def counts(address: str) -> Counter[str]:
    """Requests so far, by ``VERB kind``: the verbs of Kubernetes, of which ``find`` is a list by the name of a Job."""
    with urllib.request.urlopen(f"{address}/counted", timeout=60) as answer:
        return Counter(json.load(answer))


def described(line: str) -> str:
    """A request's first line as ``VERB kind``."""
    method, target, _ = line.split()
    address = urlsplit(target)
    place = _PLACE.search(address.path)
    if place is None:
        return f"{method} {address.path}"
    kind = place["kind"] + (place["below"] or "")
    one = address.path.partition(f"/{place['kind']}")[2] != ""
    verb = {"POST": "create", "DELETE": "delete", "GET": "get" if one else "list"}.get(method, method)
    if verb == "list":
        verb = "watch" if "watch=1" in address.query else "find" if "job-name" in address.query else "list"
    return f"{verb} {kind}"


class _Counter:
    def __init__(self, access: Access) -> None:
        self._access = access
        self._counts: Counter[str] = Counter()
        self._lines = "".join(f"{name}: {value}\r\n" for name, value in access.headers.items()).encode()

    async def serve(self, client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        """One connection of the client, and one of ours for it."""
        back: asyncio.Task[None] | None = None
        there: asyncio.StreamWriter | None = None
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await client.readuntil(b"\r\n\r\n")
                line = head.partition(b"\r\n")[0].decode()
                if line.startswith("GET /counted"):
                    body = json.dumps(self._counts).encode()
                    answer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                    continue
                self._counts[described(line)] += 1
                if there is None:
                    here, there = await asyncio.open_connection(
                        self._access.host, self._access.port, ssl=self._access.tls
                    )
                    back = asyncio.create_task(_pass(here, answer))
                there.write(head[:-2] + self._lines + b"\r\n")
                length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
                if length:
                    there.write(await client.readexactly(int(length[1])))
                await there.drain()
        if there is not None:
            there.close()
        if back is not None:
            await asyncio.wait([back], timeout=1)
        answer.close()


async def _pass(here: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await here.read(65536):
            answer.write(data)
            await answer.drain()
    answer.close()


async def _main(config: Path) -> None:
    server = await asyncio.start_server(_Counter(Access.read()).serve, "127.0.0.1", 0, limit=2**20)
    port = server.sockets[0].getsockname()[1]
    said = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "counted",
        "clusters": [{"name": "counted", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "counted", "user": {}}],
        "contexts": [{"name": "counted", "context": {"cluster": "counted", "user": "counted"}}],
    }
    await asyncio.to_thread(_write, config, json.dumps(said))
    async with server:
        await server.serve_forever()


def _write(config: Path, text: str) -> None:
    part = config.with_suffix(".part")
    part.write_text(text)
    part.rename(config)


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))
