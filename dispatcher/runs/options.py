"""The options of a run: the same keywords in ``@flow``, ``submit`` and ``map``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from dispatcher.errors import InvalidInput
from dispatcher.runs.retry import Retry
from dispatcher.runs.routing import check_labels
from dispatcher.support.durations import Seconds, seconds_of
from dispatcher.support.escaping import shown
from dispatcher.support.parsing import Fields, valid

#: Seconds that an ended run is kept by default: 7 days.
DEFAULT_RESULT_TTL = 7 * 86400.0

#: Seconds that a time must be below: some 300 years.
_LONGEST = 1e10

# Checked options by their JSON: most runs have the same, and checking takes half of the time of parsing a spec.
_cache: dict[str, Options] = {}
_CACHE_SIZE = 256
_LONGEST_CACHED = 2000  # characters


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a run. None means that the option isn't set here: submit precedes flow, flow precedes settings.

    Times are in seconds; :meth:`of` accepts a timedelta too.
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
            InvalidInput: an option is wrong; names it, its value and what is allowed.
        """
        if name is not None and (not isinstance(name, str) or not name or not name.isprintable() or len(name) > 200):
            raise InvalidInput(f"name: must be 1 to 200 printable characters, got {shown(name)}")
        if retries is not None and not isinstance(retries, int | Retry):
            raise InvalidInput(f"retries: must be an integer or a Retry, got {shown(retries)}")
        return cls(
            name=name,
            tags=None if tags is None else check_labels(tags, name="tags"),
            timeout=_seconds("timeout", timeout),
            start_within=_seconds("start_within", start_within),
            result_ttl=_seconds("result_ttl", result_ttl),
            retries=None if retries is None else Retry.of(retries),
        )

    def over(self, other: Options) -> Options:
        """Return these options, with ``other``'s for those that aren't set here."""
        return Options(
            **{
                f.name: own if (own := getattr(self, f.name)) is not None else getattr(other, f.name)
                for f in fields(self)
            }
        )

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that :meth:`from_json` reads. Options that aren't set are left out."""
        data = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        if self.retries is not None:
            data["retries"] = self.retries.to_json()
        if self.tags is not None:
            data["tags"] = list(self.tags)
        return data

    @classmethod
    def from_json(cls, data: Any) -> Options:
        """Parse what :meth:`to_json` returns.

        Raises:
            Malformed: they are no options.
        """
        key = repr(data)
        options = _cache.get(key)
        if options is None:
            options = cls._parse(Fields(data, "options"))
            if len(_cache) >= _CACHE_SIZE:
                _cache.clear()
            if len(key) <= _LONGEST_CACHED:
                _cache[key] = options
        return options

    @classmethod
    def _parse(cls, data: Fields) -> Options:
        retries = data.data.get("retries")
        options: Options = valid(
            cls.of,
            "options",
            name=data.optional_text("name"),
            tags=None if data.data.get("tags") is None else data.names("tags"),
            timeout=data.optional_number("timeout"),
            start_within=data.optional_number("start_within"),
            result_ttl=data.optional_number("result_ttl"),
            retries=None if retries is None else Retry.from_json(retries),
        )
        return options


def _seconds(name: str, value: Seconds | None) -> float | None:
    if value is None:
        return None
    seconds = seconds_of(value)
    if seconds is None or not 0 < seconds < _LONGEST:
        raise InvalidInput(
            f"{name}: must be more than 0 seconds and less than {_LONGEST:.0e} (a number or a timedelta), "
            f"got {shown(value)}; leave it out for no bound"
        )
    return float(seconds)
