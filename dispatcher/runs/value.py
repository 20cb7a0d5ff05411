"""A value that travels with a run: its parameters, result or exception.

:mod:`dispatcher.serialization` makes and opens it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from dispatcher.support.parsing import Fields


@dataclass(frozen=True, kw_only=True)
class Value:
    """Parameters, a result or an exception, as JSON text or as a sealed pickle, inline or in a blob.

    ``codec`` is ``json`` or ``pickle``, or another release's word. Exactly one of ``inline`` (text; pickles in base64)
    and ``blob`` (a name in :class:`~dispatcher.records.blobs.Blobs`) is set. ``digest`` is the SHA-256 of the raw bytes
    in hex, ``size`` their number. ``mac`` authenticates a sealed pickle that a runner made; parameters are covered by
    the spec's signature instead.
    """

    codec: str
    inline: str | None = None
    blob: str | None = None
    digest: str = ""
    size: int = 0
    mac: str = ""
    others: Mapping[str, Any] = field(default_factory=dict, hash=False)  #: fields of another release, unchanged

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that :meth:`from_json` reads."""
        own = {name: value for name, value in self.__dict__.items() if value not in (None, "") and name != "others"}
        return {**self.others, **own} if self.others else own

    @classmethod
    def from_json(cls, data: Any) -> Value:
        """Parse what :meth:`to_json` returns.

        Raises:
            Malformed: it is no value.
        """
        parsed = Fields(data, "value")
        return cls(
            codec=parsed.name("codec"),
            inline=parsed.optional_text("inline"),
            blob=parsed.optional_text("blob"),
            digest=parsed.name("digest", ""),
            size=parsed.whole("size", 0),
            mac=parsed.name("mac", ""),
            others=parsed.but(_OWN_FIELDS),
        )


_OWN_FIELDS = frozenset(f.name for f in fields(Value)) - {"others"}
