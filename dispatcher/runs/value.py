"""A value that travels with a run: parameters, a result or an exception."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from dispatcher.support.parsing import Fields


@dataclass(frozen=True, kw_only=True)
class Value:
    """A parameter set, result or exception: JSON text, or a sealed pickle; inline, or the name of a blob.

    ``codec`` is ``json`` or ``pickle``, or another release's word; exactly one of ``inline`` (text; pickles in base64)
    and ``blob`` (a name in :class:`~dispatcher.records.base.Blobs`) is set. ``digest`` is the SHA-256 of the raw bytes,
    in hex; ``size`` is theirs, in bytes; ``mac`` authenticates a sealed pickle made by a runner (parameters are covered
    by the spec's signature instead).
    """

    codec: str
    inline: str | None = None
    blob: str | None = None
    digest: str = ""
    size: int = 0
    mac: str = ""
    others: Mapping[str, Any] = field(default_factory=dict, hash=False)  #: fields of another release, as they came

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads."""
        own = {name: value for name, value in self.__dict__.items() if value not in (None, "") and name != "others"}
        return {**self.others, **own} if self.others else own

    @classmethod
    def from_json(cls, data: Any) -> Value:
        """The inverse of :meth:`to_json`.

        Raises:
            Malformed: it is none.
        """
        given = Fields(data, "value")
        return cls(
            codec=given.name("codec"),
            inline=given.optional_text("inline"),
            blob=given.optional_text("blob"),
            digest=given.name("digest", ""),
            size=given.whole("size", 0),
            mac=given.name("mac", ""),
            others=given.but(_OF_VALUE),
        )


_OF_VALUE = frozenset(f.name for f in fields(Value)) - {"others"}
