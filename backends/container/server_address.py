"""The address of the records' server for containers: they may reach it otherwise than the worker does."""

from __future__ import annotations

from urllib.parse import urlencode

from backends.container.settings import ContainerSettings
from dispatcher.errors import InvalidSettings
from dispatcher.settings import Settings
from dispatcher.support import urls

#: The variable in which a runner finds the address.
URL = "DISPATCHER__URL"

_LOOPBACK = ("localhost", "127.", "::1", "0.0.0.0")


def server_url(
    settings: Settings, group: ContainerSettings, *, variables: str, ca_path: str, loopback: bool = False
) -> str:
    """Return the server's URL for containers.

    Args:
        settings: the worker's.
        group: the backend's group of them.
        variables: prefix of that group's variables, such as ``DISPATCHER__KUBERNETES__``.
        ca_path: the path in a container at which the authority's PEM text lies, if there is one.
        loopback: True if containers share the worker's network, so that a loopback address or a socket reaches it.

    Raises:
        InvalidSettings: none is set, or containers can't reach it.
    """
    variable = source(group, variables=variables)
    url = group.url or settings.url or ""
    remedy = f"set {variables}URL to its address as containers reach it"
    if not url:
        raise InvalidSettings(f"{variable}: no server is set; {remedy}")
    address = None if url.startswith(urls.MEMORY) else urls.parse(url)
    if address is None or not (loopback or _is_remote(address)):
        raise InvalidSettings(f"{variable}: containers can't reach {urls.shown(url)}; {remedy}")
    if group.ca_file is not None and address.tls:
        option = urlencode({"ssl_ca_certs": ca_path})
        url = f"{url}{'&' if address.options else '?'}{option}"
    return url


def source(group: ContainerSettings, *, variables: str) -> str:
    """Return the variable that gives containers the server's URL."""
    return f"{variables}URL" if group.url else URL


def authority(group: ContainerSettings, *, variables: str) -> str | None:
    """Return the PEM text of the authority that containers check the server against; None if none is set.

    Raises:
        InvalidSettings: its file can't be read.
    """
    if group.ca_file is None:
        return None
    try:
        return group.ca_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"{variables}CA_FILE: {group.ca_file}: {error}") from None


def _is_remote(address: urls.Address) -> bool:
    return bool(address.hosts) and not any(host.startswith(_LOOPBACK) for host, _ in address.hosts)
