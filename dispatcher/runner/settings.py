"""The few settings that a runner needs. A container gets them as variables, so that it never loads pydantic.

Read by :mod:`dispatcher.runner.container`, and set for containers by the worker's provisioning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dispatcher.logs.limits import Limits

if TYPE_CHECKING:
    from dispatcher.settings import Settings


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    inline: int
    result: int
    log: int
    line: int


@dataclass(frozen=True, kw_only=True)
class RunnerSettings:
    """Sizes and times of one attempt, and the default log level. ``stop_grace`` and ``on_exit_timeout`` are in
    seconds."""

    limits: Limits
    stop_grace: float
    on_exit_timeout: float
    log_level: str = "INFO"

    @classmethod
    def of(cls, settings: Settings) -> RunnerSettings:
        """Take them from a worker's settings."""
        limits, timing = settings.limits, settings.timing
        sizes = _Sizes(inline=limits.inline, result=limits.result, log=limits.log, line=limits.line)
        return cls(
            limits=sizes,
            stop_grace=timing.stop_grace,
            on_exit_timeout=timing.on_exit_timeout,
            log_level=settings.defaults.log_level,
        )

    @classmethod
    def read(cls, variables: Mapping[str, str]) -> RunnerSettings:
        """Read what :meth:`variables` wrote; if one is missing, load all settings.

        Raises:
            InvalidSettings: a variable has a wrong value.
        """
        try:
            sizes = _Sizes(**{name: int(variables[f"DISPATCHER__LIMITS__{name.upper()}"]) for name in _NAMES})
            times = {name: float(variables[f"DISPATCHER__TIMING__{name.upper()}"]) for name in _TIMES}
            return cls(limits=sizes, **times, log_level=variables[_LEVEL])
        except (KeyError, ValueError):
            from dispatcher.settings import Settings

            return cls.of(Settings.load())

    def variables(self) -> dict[str, str]:
        """Return them as variables, named like the settings."""
        sizes = {name: getattr(self.limits, name) for name in _NAMES}
        times = {name: getattr(self, name) for name in _TIMES}
        return {
            **{f"DISPATCHER__LIMITS__{name.upper()}": str(size) for name, size in sizes.items()},
            **{f"DISPATCHER__TIMING__{name.upper()}": f"{seconds:g}" for name, seconds in times.items()},
            _LEVEL: self.log_level,
        }


_NAMES = ("inline", "result", "log", "line")
_LEVEL = "DISPATCHER__DEFAULTS__LOG_LEVEL"
_TIMES = ("stop_grace", "on_exit_timeout")
