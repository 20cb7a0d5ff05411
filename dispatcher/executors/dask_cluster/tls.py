"""The files of a cluster's certificate, and Dask's configuration of them. Dask is imported when it is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dispatcher.errors import InvalidSettings

_PREFIX = "DASK_DISTRIBUTED__COMM__"
_CERT, _KEY = "DISPATCHER__RUN__TLS_CERT", "DISPATCHER__RUN__TLS_KEY"


@dataclass(frozen=True, kw_only=True)
class Tls:
    """The paths of a certificate that is its own authority, and of its key, both PEM."""

    cert: str
    key: str

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> Tls:
        """Return what the variables of a flow's container name.

        Raises:
            InvalidSettings: one is missing.
        """
        for name in (_CERT, _KEY):
            if not variables.get(name):
                raise InvalidSettings(f"{name}: not set; a run's own Dask cluster needs the path of its certificate")
        return cls(cert=variables[_CERT], key=variables[_KEY])

    def variables(self) -> dict[str, str]:
        """Return variables by which Dask's processes use it, and accept nothing else."""
        names = {f"{_PREFIX}REQUIRE_ENCRYPTION": "True", f"{_PREFIX}TLS__CA_FILE": self.cert}
        for role in ("SCHEDULER", "WORKER", "CLIENT"):
            names |= {f"{_PREFIX}TLS__{role}__CERT": self.cert, f"{_PREFIX}TLS__{role}__KEY": self.key}
        return names

    def configure(self) -> None:
        """Have clients of this process use it for addresses with ``tls://``, unless others are configured."""
        import dask

        names = {"ca-file": self.cert, "client.cert": self.cert, "client.key": self.key}
        if not any(dask.config.get(f"distributed.comm.tls.{name}", None) for name in names):
            dask.config.set({f"distributed.comm.tls.{name}": path for name, path in names.items()})

    def security(self) -> Any:
        """Return a ``distributed.Security`` for a client."""
        from distributed.security import Security

        return Security(
            require_encryption=True, tls_ca_file=self.cert, tls_client_cert=self.cert, tls_client_key=self.key
        )
