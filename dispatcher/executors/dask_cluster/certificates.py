"""The certificate of one temporary Dask cluster, made for it alone and used by all its members.

Called by backends that create such clusters. Dask and cryptography are imported when they are needed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dispatcher.errors import MissingExtra


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """A certificate that is its own authority, and its key, as PEM text."""

    cert: str
    key: str = field(repr=False)


def make_certificate() -> Certificate:
    """Return a new certificate with a new key.

    Raises:
        MissingExtra: Dask or cryptography isn't installed.
    """
    try:
        from distributed.security import Security

        made = Security.temporary()
    except ImportError as error:
        raise MissingExtra(
            f"the certificates of a Dask cluster need distributed and cryptography ({error}): "
            "pip install 'flow-dispatcher[dask-kubernetes]'"
        ) from error
    return Certificate(cert=made.tls_scheduler_cert, key=made.tls_scheduler_key)
