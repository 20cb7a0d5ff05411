"""All settings, one frozen class per concern, read from ``DISPATCHER__…`` variables, and then from ``dispatcher.toml``.

``DISPATCHER__URL``, or ``url`` in the file, is :attr:`Settings.url`; ``DISPATCHER__WORKER__DRAIN``, or ``drain`` in its
table ``[worker]``, is :attr:`WorkerSettings.drain`. A backend's group lies in the backend's folder and is found by its
entry point. The table in the documentation is generated from the
``description`` of each field.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, SupportsIndex, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Json,
    SecretStr,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from dispatcher import registry
from dispatcher.errors import InvalidInput, InvalidSettings
from dispatcher.runs.retry import LONGEST
from dispatcher.runs.routing import IN_PROCESS
from dispatcher.support import config_file, settings_errors, settings_files
from dispatcher.support.settings_sources import ConfigurationFile, Variables
from dispatcher.support.urls import redacted

#: First words of variables that aren't settings: the project sets them itself, in containers and in tests.
INTERNAL = frozenset({"run", "parameters", "failpoint"})

#: First words of variables that say which configuration is read.
CONFIGURATION = frozenset({"config", "profile"})

#: Marks a field whose value holds credentials, or may, so that no error shows it: ``Field(json_schema_extra=SECRET)``.
SECRET: dict[str, Any] = {"secret": True}

G = TypeVar("G", bound="SettingsGroup")


def _shown(fields: Iterable[tuple[str | None, Any]]) -> Iterator[tuple[str | None, Any]]:
    """Yield the fields of a repr, URLs without their credentials."""
    for name, value in fields:
        yield name, redacted(value) if name in {"url", "broker_url"} else value


class SettingsGroup(BaseModel):
    """Base of all groups of settings. A group of a backend names its heading in the settings table by ``title=…``."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        return _shown(super().__repr_args__())


class KeySettings(SettingsGroup):
    """A signing key, with the backends and the use that it is for."""

    secret: SecretStr = Field(description="At least 16 bytes.")
    backends: tuple[str, ...] | None = Field(None, description="Backends that runs signed with it may use; else all.")
    use: str = Field("specs", description="specs, or records: what workers store of their own is sealed with it.")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, entry: Any) -> Any:
        return {"secret": entry} if isinstance(entry, str | SecretStr) else entry

    def plain(self) -> dict[str, Any]:
        """Return the entry as a file of keys has it."""
        return {"secret": self.secret.get_secret_value(), "backends": self.backends, "use": self.use}


class WorkerSettings(SettingsGroup):
    """Settings of a worker: what it serves and how it ends."""

    backends: frozenset[str] = Field(IN_PROCESS, description="Backends served (a list).")
    labels: frozenset[str] = Field(frozenset(), description="Labels served (a list).", examples=[["gpu", "eu"]])
    every_label: bool = Field(False, description="Serve runs of any labels; the laptop server's worker does.")
    scope: str = Field(
        "",
        pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]{0,99})?$",
        description="Scope of the queues served; set by the laptop server, empty elsewhere.",
    )
    callbacks: frozenset[str] = Field(
        frozenset(),
        description="on_exit functions (a list of modules and module:function) that this worker calls where the "
        "runner in a container died first.",
        examples=[["flows:tidy_up"]],
    )
    concurrency: int = Field(2, ge=1, description="Pool processes: how many in-process flows run at once.")
    runner_users: bool = Field(
        False,
        description="Give each attempt in a container a Redis user of its own; the worker's user must be allowed to "
        "make users.",
    )
    runs_per_process: int | None = Field(
        None, ge=1, description="Runs after which a pool process ends and a fresh one takes its place; else any number."
    )
    liveness_file: Path | None = Field(
        None,
        description="File that a worker touches every 10 s once it is ready, for as long as its threads work; for "
        "liveness probes.",
        examples=["/tmp/alive"],
    )
    drain: float = Field(30.0, ge=0, description="Seconds that running flows get after SIGTERM.")


class TimingSettings(SettingsGroup):
    """Leases, ticks and graces. Production rarely changes them; tests divide them."""

    renew: float = Field(10.0, gt=0, description="Seconds between two renewals of a worker's lease.")
    lease: float = Field(30.0, gt=0, description="Seconds a lease must be seen unchanged before it has ended.")
    queue_tick: float = Field(0.5, gt=0, description="Seconds between two looks for new queues.")
    bell_tick: float = Field(2.0, gt=0, description="Seconds between two looks for lost doorbells and due times.")
    lease_tick: float = Field(5.0, gt=0, description="Seconds between two looks for ended leases.")
    orphan_tick: float = Field(30.0, gt=0, description="Seconds between two sweeps for orphans, retention and queues.")
    bell_lost: float = Field(5.0, gt=0, description="Seconds of evidence after which a doorbell counts as lost.")
    bell_most: float = Field(300.0, gt=0, description="Longest pause, in seconds, between two rings of one run.")
    queue_unused: float = Field(86400.0, gt=0, description="Seconds after which an unused queue is forgotten.")
    stop_grace: float = Field(
        10.0, ge=0, le=LONGEST, description="Seconds a flow gets to end after a timeout or a cancel."
    )
    on_exit_timeout: float = Field(60.0, gt=0, le=LONGEST, description="Seconds that on_exit may take.")
    poll: float = Field(2.0, gt=0, description="Seconds between two looks at all infrastructure; watches wake earlier.")
    node_lost: float = Field(
        300.0, gt=0, description="Seconds without a sign of life after which a runner on a lost node has ended."
    )


class LimitSettings(SettingsGroup):
    """Sizes and spans, in bytes unless a field says otherwise."""

    inline: int = Field(
        65536, ge=0, le=4 * 2**20, description="Parameters and results above this travel as a blob of their own."
    )
    parameters: int = Field(512 * 2**20, gt=0, description="Most bytes of a run's parameters.")
    flow: int = Field(64 * 2**20, gt=0, description="Most bytes of a flow by value, and of the files of its bundle.")
    result: int = Field(512 * 2**20, gt=0, description="Most bytes of a result; a larger one fails the run.")
    log: int = Field(
        10 * 2**20, gt=0, description="Most bytes of log lines per attempt; then a gap and the last lines."
    )
    signature: float = Field(
        30 * 86400.0,
        ge=3600,
        description="Seconds that a run may wait and be repeated, where its options bound neither; then its signature "
        "has expired, and it ends.",
    )
    line: int = Field(16384, ge=64, le=4 * 2**20, description="Most bytes of one log line; the rest of it is cut.")


class ResultSettings(SettingsGroup):
    """Settings of the results that a client opens."""

    plain: bool = Field(
        False,
        description="Refuse results and exceptions that are Python objects; only JSON is opened here.",
    )


class DefaultSettings(SettingsGroup):
    """Defaults of run options and environments."""

    executor: str = Field("dispatcher.executors.LocalExecutor", description="Executor class of RemoteEnvironment.")
    executor_kwargs: dict[str, Any] = Field(
        default_factory=dict,
        description="Its arguments (JSON).",
        examples=[{"n_workers": 4}],
        json_schema_extra=SECRET,
    )
    timeout: float | None = Field(None, gt=0, description="Seconds a flow may run.", examples=[3600])
    start_within: float | None = Field(None, gt=0, description="Seconds from queued to started.", examples=[600])
    result_ttl: float = Field(7 * 86400.0, gt=0, description="Seconds a finished run is kept.")
    retries: int = Field(0, ge=0, description="Further attempts.")
    check_types: bool = Field(
        True, description="Check parameters against simple annotations of the flow at submit; values aren't converted."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        "INFO",
        description="Least level of log records that are kept, of loggers to which the flow gives none; where it runs.",
    )


class Settings(BaseSettings):
    """All settings, from ``DISPATCHER__…`` variables and ``dispatcher.toml``; the variables come first.

    Raises:
        InvalidSettings: from :meth:`load`; names the variable, its value and what is allowed.
    """

    model_config = SettingsConfigDict(
        env_prefix="DISPATCHER__",
        env_nested_delimiter="__",
        frozen=True,
        extra="ignore",
        validate_default=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    url: str | None = Field(
        None,
        description="Redis or Valkey for records: redis://, rediss://, unix://, sentinel://.",
        json_schema_extra=SECRET,
    )
    broker_url: str | None = Field(
        None, description="Redis or Valkey for doorbells, where that is another one.", json_schema_extra=SECRET
    )
    embedded: bool = Field(
        True, description="Without a URL, use the laptop server; false makes that an error.", examples=[False]
    )
    signing_keys: Annotated[
        Json[dict[str, KeySettings]] | None,
        BeforeValidator(settings_errors.once),
        Field(
            description="JSON: key id → secret (or an object); the first signs.",
            examples=[{"k1": "a secret of 16 bytes or more"}],
            json_schema_extra=SECRET,
        ),
    ] = None
    signing_keys_file: Path | None = Field(
        None, description="File that holds that JSON; no other user may write it, and read it only if root gave it."
    )
    state_dir: Path | None = Field(
        None, description="Where the laptop server keeps data; else the user's state directory."
    )
    submit_within: float = Field(15.0, gt=0, description="Seconds that a submit may take before it gives up.")
    worker: WorkerSettings = Field(default_factory=WorkerSettings, description="The worker.")
    timing: TimingSettings = Field(default_factory=TimingSettings, description="Leases, ticks and graces.")
    limits: LimitSettings = Field(default_factory=LimitSettings, description="Sizes.")
    results: ResultSettings = Field(default_factory=ResultSettings, description="Results.")
    defaults: DefaultSettings = Field(default_factory=DefaultSettings, description="Defaults of run options.")

    _groups: ClassVar[tuple[str, ...]] = ()  # the groups of backends among the fields, of a class by with_groups

    @classmethod
    def load(cls, **values: Any) -> Settings:
        """Read the variables and the configuration file.

        Args:
            values: come before both; None counts as not given.

        Raises:
            InvalidSettings: a variable or a value of the file is wrong, or the file can't be used.
        """
        values = {name: value for name, value in values.items() if value is not None}
        file = config_file.current()
        model = cls.with_groups(_groups_in_use([*values, *file.settings]))
        settings_files.check(file, model)
        try:
            return model(**values)
        except ValidationError as error:
            raise InvalidSettings(settings_errors.explain(error, model, file)) from None
        except SettingsError as error:
            raise InvalidSettings(settings_errors.explain_json(error, model)) from None

    @classmethod
    def with_groups(cls, names: Iterable[str]) -> type[Settings]:
        """Return this class with these groups of backends as further fields.

        Raises:
            InvalidSettings: a group can't be imported.
        """
        return _with_groups(cls, tuple(sorted(names)))

    def group(self, kind: type[G]) -> G:
        """Return the settings of one backend by their class: as they are set, else their defaults."""
        for value in vars(self).values():
            if isinstance(value, kind):
                return value
        defaults: G = _defaults(kind)
        return defaults

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Return the defaults of a backend's group that isn't set."""
            if not name.startswith("_") and name in _group_names(tuple(sys.path)):
                return _defaults(registry.settings_group(name))
            return super().__getattr__(name)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the variables, then the configuration file; values that were passed come first."""
        return init_settings, Variables(settings_cls), ConfigurationFile(settings_cls)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        return _shown(super().__repr_args__())

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        # pickle doesn't find a class by with_groups under its name
        if not self._groups:
            return super().__reduce_ex__(protocol)
        return _blank, (type(self).__base__, self._groups), self.__getstate__()

    def without_url(self) -> InvalidSettings:
        """Return the error of a command that needs a URL."""
        reason = "" if self.embedded else "; DISPATCHER__EMBEDDED=false rules out the laptop server"
        return InvalidSettings(f"no server: set DISPATCHER__URL{reason}")

    def but(self, **changes: Any) -> Settings:
        """Return a copy with some fields changed."""
        return self.model_copy(update=changes)


def _groups_in_use(values: Iterable[str]) -> list[str]:
    """Return the groups of backends of which a variable, or one of ``values`` by its first word, sets something.

    The others aren't imported. Other distributions are searched only for names that aren't ours.
    """
    prefix = str(Settings.model_config["env_prefix"]).lower()
    variables = [name for name in map(str.lower, os.environ) if name.startswith(prefix)]
    words = {name.removeprefix(prefix).partition("__")[0] for name in variables}
    names = {*words, *values} - Settings.model_fields.keys() - INTERNAL - CONFIGURATION
    ours = names.intersection(registry.SETTINGS.our_names()) if names else set()
    others = (names - ours) & _group_names(tuple(sys.path)) if names - ours else set()
    return sorted(ours | others)


@lru_cache(maxsize=4)
def _group_names(path: tuple[str, ...]) -> frozenset[str]:
    """Return the names of all groups of backends that are installed on ``path``."""
    return frozenset(registry.SETTINGS.names())


@lru_cache(maxsize=64)
def _with_groups(model: type[Settings], names: tuple[str, ...]) -> type[Settings]:
    if not names:
        return model
    fields: dict[str, Any] = {}
    for name in names:
        try:
            kind = registry.settings_group(name)
        except InvalidInput as error:
            raise InvalidSettings(str(error)) from error
        fields[name] = (kind, Field(default_factory=kind, description=kind.model_config.get("title") or name))
    made = create_model(model.__name__, __base__=model, __module__=model.__module__, **fields)
    made._groups = names
    return made


def _blank(model: type[Settings], names: tuple[str, ...]) -> Settings:
    """Return an object for pickle to fill, of a class with these groups."""
    kind = _with_groups(model, names)
    return kind.__new__(kind)


@cache
def _defaults(kind: type[G]) -> G:
    return kind()
