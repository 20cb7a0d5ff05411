"""Count the requests of a client to the API server, by a proxy in a process of its own.

The proxy speaks plain HTTP to the client and authenticates with the user of ``KUBECONFIG``. It reads only the first
line of requests, and forwards responses unread. ``GET /counted`` returns the counts, which :func:`counts` reads.
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

from benchmarks.cluster import ClusterAccess
from benchmarks.machine import child, until

_PLACE = re.compile(r"/namespaces/[^/]+/(?P<kind>[^/]+)(?:/[^/]+(?P<below>/[^/]+)?)?$")


@contextlib.contextmanager
def counting(folder: Path) -> Iterator[tuple[str, Path]]:
    """Start the proxy; yield its address and a kubeconfig that points to it."""
    config, log = folder / "counted.kubeconfig", folder / "counter.log"
    command = [sys.executable, "-P", "-m", "benchmarks.request_counter", str(config)]
    with child(command, log=log):
        until(config.exists, "the counting proxy")
        yield json.loads(config.read_text())["clusters"][0]["cluster"]["server"], config


def counts(address: str) -> Counter[str]:
    """Return the requests so far by ``VERB kind``, with the verbs of Kubernetes; ``find`` is a list by a Job's name."""
    with urllib.request.urlopen(f"{address}/counted", timeout=60) as answer:
        return Counter(json.load(answer))


def verb_and_kind(line: str) -> str:
    """Convert a request's first line to ``VERB kind``."""
    method, target, _ = line.split()
    address = urlsplit(target)
    place = _PLACE.search(address.path)
    if place is None:
        return f"{method} {address.path}"
    kind = place["kind"] + (place["below"] or "")
    names_object = address.path.partition(f"/{place['kind']}")[2] != ""
    verb = {"POST": "create", "DELETE": "delete", "GET": "get" if names_object else "list"}.get(method, method)
    if verb == "list":
        verb = "watch" if "watch=1" in address.query else "find" if "job-name" in address.query else "list"
    return f"{verb} {kind}"


class _CountingProxy:
    def __init__(self, access: ClusterAccess) -> None:
        self._access = access
        self._counts: Counter[str] = Counter()
        self._lines = "".join(f"{name}: {value}\r\n" for name, value in access.headers.items()).encode()

    async def serve(self, client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        """Serve one connection of the client, by one connection to the API server."""
        back: asyncio.Task[None] | None = None
        upstream: asyncio.StreamWriter | None = None
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await client.readuntil(b"\r\n\r\n")
                line = head.partition(b"\r\n")[0].decode()
                if line.startswith("GET /counted"):
                    body = json.dumps(self._counts).encode()
                    answer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                    continue
                self._counts[verb_and_kind(line)] += 1
                if upstream is None:
                    responses, upstream = await asyncio.open_connection(
                        self._access.host, self._access.port, ssl=self._access.tls
                    )
                    back = asyncio.create_task(_forward(responses, answer))
                upstream.write(head[:-2] + self._lines + b"\r\n")
                length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
                if length:
                    upstream.write(await client.readexactly(int(length[1])))
                await upstream.drain()
        if upstream is not None:
            upstream.close()
        if back is not None:
            await asyncio.wait([back], timeout=1)
        answer.close()


async def _forward(responses: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await responses.read(65536):
            answer.write(data)
            await answer.drain()
    answer.close()


async def _main(config: Path) -> None:
    server = await asyncio.start_server(_CountingProxy(ClusterAccess.read()).serve, "127.0.0.1", 0, limit=2**20)
    port = server.sockets[0].getsockname()[1]
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "counted",
        "clusters": [{"name": "counted", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "counted", "user": {}}],
        "contexts": [{"name": "counted", "context": {"cluster": "counted", "user": "counted"}}],
    }
    await asyncio.to_thread(_write, config, json.dumps(kubeconfig))
    async with server:
        await server.serve_forever()


def _write(config: Path, text: str) -> None:
    part = config.with_suffix(".part")
    part.write_text(text)
    part.rename(config)


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))
