"""A stranger in a pod, who tries the ports of other pods. The text of this file runs there, by ``python -c``.

It prints a JSON object: for each address the result by the way in which it was tried, such as ``refused``.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import sys

TIMEOUT = 5.0

#: The content type of a TLS alert, the only answer that a TLS server gives to what isn't TLS.
ALERT = 0x15


def speak_plainly(host: str, port: int) -> str:
    """Send an HTTP request; a TLS server answers with an alert, or hangs up."""
    try:
        with socket.create_connection((host, port), timeout=TIMEOUT) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = connection.recv(100)
    except OSError:
        return "refused"
    return "refused" if not answer or answer[0] == ALERT else f"answered {answer!r}"


def handshake_without_certificate(host: str, port: int) -> str:
    """Do a TLS handshake without a certificate, and wait for a byte of the server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout=TIMEOUT) as connection,
            context.wrap_socket(connection) as wrapped,
        ):
            answer = wrapped.recv(100)
    except (ssl.SSLError, OSError):
        return "refused"
    return f"answered {answer!r}" if answer else "refused"


async def connect(address: str, security: object) -> str:
    """Connect as a Dask client does, and ask who is there."""
    from distributed.core import connect as dask_connect

    arguments = security.get_connection_args("client") if security else {}  # type: ignore[attr-defined]
    try:
        comm = await dask_connect(address, timeout=TIMEOUT, **arguments)
        await comm.write({"op": "identity", "reply": True})
        answer = await asyncio.wait_for(comm.read(), TIMEOUT)
    except Exception:  # whatever says no
        return "refused"
    return f"answered {str(answer)[:100]}"


def main(addresses: list[str]) -> dict[str, dict[str, str]]:
    """Try all addresses, each ``host:port``."""
    from distributed.security import Security

    results = {}
    for address in addresses:
        host, _, port = address.rpartition(":")
        results[address] = {
            "plain text": speak_plainly(host, int(port)),
            "TLS without a certificate": handshake_without_certificate(host, int(port)),
            "plain Dask": asyncio.run(connect(f"tcp://{address}", None)),
            "another certificate": asyncio.run(connect(f"tls://{address}", Security.temporary())),
        }
    return results


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))  # noqa: T201
