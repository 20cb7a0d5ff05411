"""The options of a run: the same keywords on ``@flow``, ``submit`` and ``map``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any

from dispatcher.errors import InvalidInput
from dispatcher.runs.retry import Retry
from dispatcher.runs.routing import check_labels
from dispatcher.support.parsing import Fields, valid

#: Seconds a finished run is kept unless told otherwise: 7 days.
DEFAULT_RESULT_TTL = 7 * 86400.0

Seconds = float | int | timedelta

# Options by their JSON: most runs have the same, and to check them takes half of the time of reading a spec.
#: Seconds that a bound must be below: some 300 years.
_LONGEST = 1e10

_known: dict[str, Options] = {}
_MOST = 256
_LONG = 2000  # characters of JSON above which nothing is remembered


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options as given; None means "not said here", so that submit goes before flow before settings.

    Times are in seconds, or a timedelta on the way in (:meth:`of`).
    """

    name: str | None = None
    tags: tuple[str, ...] | None = None
    timeout: float | None = None
    start_within: float | None = None
    result_ttl: float | None = None
    retries: Retry | None = None

    @classmethod
    def of(
        cls,
        *,
        name: str | None = None,
        tags: Iterable[str] | None = None,
        timeout: Seconds | None = None,
        start_within: Seconds | None = None,
        result_ttl: Seconds | None = None,
        retries: int | Retry | None = None,
    ) -> Options:
        """Check and normalise options.

        Raises:
            InvalidInput: naming the option, its value and what is allowed.
        """
        if name is not None and (not isinstance(name, str) or not name or not name.isprintable() or len(name) > 200):
            raise InvalidInput(f"name: must be 1 to 200 printable characters, got {name!r}")
        if retries is not None and not isinstance(retries, int | Retry):
            raise InvalidInput(f"retries: must be an integer or a Retry, got {retries!r}")
        return cls(
            name=name,
            tags=None if tags is None else check_labels(tags, what="tags"),
            timeout=_seconds("timeout", timeout),
            start_within=_seconds("start_within", start_within),
            result_ttl=_seconds("result_ttl", result_ttl),
            retries=None if retries is None else Retry.of(retries),
        )

    def over(self, other: Options) -> Options:
        """These options, and ``other``'s where these say nothing."""
        return Options(
            **{
                f.name: mine if (mine := getattr(self, f.name)) is not None else getattr(other, f.name)
                for f in fields(self)
            }
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads; options not said are left out."""
        data = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        if self.retries is not None:
            data["retries"] = self.retries.to_json()
        if self.tags is not None:
            data["tags"] = list(self.tags)
        return data

    @classmethod
    def from_json(cls, data: Any) -> Options:
        """The inverse of :meth:`to_json`.

        Raises:
            Malformed: it is none.
        """
        told = repr(data)
        known = _known.get(told)
        if known is None:
            known = cls._from(Fields(data, "options"))
            if len(_known) >= _MOST:
                _known.clear()
            if len(told) <= _LONG:
                _known[told] = known
        return known

    @classmethod
    def _from(cls, given: Fields) -> Options:
        retries = given.data.get("retries")
        made: Options = valid(
            cls.of,
            "options",
            name=given.optional_text("name"),
            tags=None if given.data.get("tags") is None else given.names("tags"),
            timeout=given.optional_number("timeout"),
            start_within=given.optional_number("start_within"),
            result_ttl=given.optional_number("result_ttl"),
            retries=None if retries is None else Retry.from_json(retries),
        )
        return made


def _seconds(what: str, value: Seconds | None) -> float | None:
    if value is None:
        return None
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _LONGEST:
        raise InvalidInput(
            f"{what}: must be more than 0 seconds and less than {_LONGEST:.0e} (a number or a timedelta), "
            f"got {repr(value)[:80]}; leave it out for no bound"
        )
    return float(value)
