"""Every setting, one frozen class per concern, read once from ``DISPATCHER__…`` variables.

``DISPATCHER__URL`` is :attr:`Settings.url`, ``DISPATCHER__WORKER__DRAIN`` is :attr:`WorkerSettings.drain`. The table in
the documentation is generated from the ``description`` of each field. Nothing is read at import.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Json,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from dispatcher.errors import InvalidSettings
from dispatcher.support import settings_errors
from dispatcher.support.json_documents import DuplicateKey, read_document
from dispatcher.support.urls import redacted

_FROZEN = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


class _Variables(EnvSettingsSource):
    """The variables; JSON in them is read as a person's."""

    def decode_complex_value(self, field_name: str, field: FieldInfo | None, value: Any) -> Any:
        try:
            return read_document(value)
        except DuplicateKey as error:
            raise settings_errors.NotJson(value, str(error)) from None
        except (ValueError, RecursionError):
            raise settings_errors.NotJson(value) from None


def _shown(facts: Iterable[tuple[str | None, Any]]) -> Iterator[tuple[str | None, Any]]:
    """Fields for a repr, URLs without their credentials."""
    for name, value in facts:
        yield name, redacted(value) if name in {"url", "broker_url"} else value


class KeySettings(BaseModel):
    """A signing key with what it may be used for."""

    model_config = _FROZEN

    secret: SecretStr = Field(description="At least 16 bytes.")
    backends: tuple[str, ...] | None = Field(None, description="Backends that runs signed with it may use; else all.")
    use: str = Field("specs", description="specs, or records: what workers store of their own is sealed with it.")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        return {"secret": given} if isinstance(given, str | SecretStr) else given

    def plain(self) -> dict[str, Any]:
        """The entry as a file of keys holds it."""
        return {"secret": self.secret.get_secret_value(), "backends": self.backends, "use": self.use}


class WorkerSettings(BaseModel):
    """Settings of a worker: what it serves and how it ends."""

    model_config = _FROZEN

    backends: frozenset[str] = Field(frozenset({"local", "remote"}), description="Backends served (a JSON list).")
    labels: frozenset[str] = Field(frozenset(), description="Labels served (a JSON list).")
    every_label: bool = Field(False, description="Serve runs of any labels; the laptop server's worker does.")
    scope: str = Field(
        "",
        pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]{0,99})?$",
        description="Scope of the queues served; set by the laptop server, empty elsewhere.",
    )
    callbacks: frozenset[str] = Field(
        frozenset(),
        description="on_exit functions (a JSON list of modules and module:function) that this worker calls where the "
        "runner in a container died first.",
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
    drain: float = Field(30.0, ge=0, description="Seconds that running flows get after SIGTERM.")


class TimingSettings(BaseModel):
    """Leases, ticks and graces. Tests divide them; production rarely changes them."""

    model_config = _FROZEN

    renew: float = Field(10.0, gt=0, description="Seconds between two renewals of a worker's lease.")
    lease: float = Field(30.0, gt=0, description="Seconds a lease must be seen unchanged before it has ended.")
    queue_tick: float = Field(0.5, gt=0, description="Seconds between two looks for new queues.")
    bell_tick: float = Field(2.0, gt=0, description="Seconds between two looks for lost doorbells and due times.")
    lease_tick: float = Field(5.0, gt=0, description="Seconds between two looks for ended leases.")
    orphan_tick: float = Field(30.0, gt=0, description="Seconds between two sweeps for orphans, retention and queues.")
    bell_lost: float = Field(5.0, gt=0, description="Seconds of evidence after which a doorbell counts as lost.")
    bell_most: float = Field(300.0, gt=0, description="Longest pause, in seconds, between two rings of one run.")
    queue_unused: float = Field(86400.0, gt=0, description="Seconds after which an unused queue is forgotten.")
    stop_grace: float = Field(10.0, ge=0, description="Seconds a flow gets to end after a timeout or a cancel.")
    on_exit_timeout: float = Field(60.0, gt=0, description="Seconds that on_exit may take.")
    poll: float = Field(2.0, gt=0, description="Seconds between two looks at all infrastructure; watches wake earlier.")
    node_lost: float = Field(
        300.0, gt=0, description="Seconds without a sign of life after which a runner on a lost node has ended."
    )


class ClusterSettings(BaseModel):
    """Settings of one Kubernetes cluster: reached as the pod's own service account where neither is given and the
    worker runs in a pod, else by a kubeconfig."""

    model_config = _FROZEN

    kubeconfig: Path | None = Field(None, description="The kubeconfig file; else KUBECONFIG, else ~/.kube/config.")
    context: str | None = Field(None, description="The context in it; else its current one.")


class KubernetesSettings(BaseModel):
    """Settings of the Kubernetes cluster that a worker serves, and of the pods of its runs."""

    model_config = _FROZEN

    clusters: dict[str, ClusterSettings] = Field(
        default_factory=dict,
        description='Clusters by name (JSON: {"eu": {"kubeconfig": …, "context": …}}); none: the one that is found.',
    )
    cluster: str = Field("", description="The cluster that this worker serves, where several are named.")
    namespaces: tuple[str, ...] = Field(
        ("default",), min_length=1, description="Namespaces served (a JSON list); runs that name none go to the first."
    )
    service_accounts: frozenset[str] = Field(
        frozenset(), description="Service accounts that runs may name (a JSON list); none: all of the namespace."
    )
    image: str | None = Field(None, description="Image of runs that name none; else flow-dispatcher-runner:VERSION.")
    url: str | None = Field(
        None, description="Redis or Valkey for pods, best as its user `runner`; else DISPATCHER__URL."
    )
    ca_file: Path | None = Field(None, description="PEM file of the authority that pods check that server against.")
    ttl: float = Field(86400.0, ge=3600, description="Seconds that the cluster keeps a Job that nobody deleted.")
    request_timeout: float = Field(30.0, gt=0, description="Seconds that the API server gets to answer a request.")
    requests_per_second: float = Field(
        500.0, ge=1, description="Requests of a worker to the API server, at most; one that it refuses (429) slows all."
    )
    silence: float = Field(90.0, gt=0, description="Seconds of silence after which a watch is opened anew.")
    relist: float = Field(300.0, gt=0, description="Seconds between two complete lists beside the watches.")

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        return _shown(super().__repr_args__())


class LimitSettings(BaseModel):
    """Sizes and spans. All in bytes unless they say otherwise."""

    model_config = _FROZEN

    inline: int = Field(
        65536, ge=0, le=4 * 2**20, description="Parameters and results above this travel as a blob of their own."
    )
    parameters: int = Field(512 * 2**20, gt=0, description="Most bytes of a run's parameters.")
    flow: int = Field(64 * 2**20, gt=0, description="Most bytes of a flow that travels by value.")
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


class ResultSettings(BaseModel):
    """Settings of what a client opens of what flows gave."""

    model_config = _FROZEN

    plain: bool = Field(
        False,
        description="Refuse results and exceptions that are Python objects; only JSON is opened here.",
    )


class DefaultSettings(BaseModel):
    """Settings of run options and environments for when nobody says."""

    model_config = _FROZEN

    executor: str = Field("dispatcher.executors.LocalExecutor", description="Executor class of RemoteEnvironment.")
    executor_kwargs: dict[str, Any] = Field(default_factory=dict, description="Its arguments (JSON).")
    timeout: float | None = Field(None, gt=0, description="Seconds a flow may run.")
    start_within: float | None = Field(None, gt=0, description="Seconds from queued to started.")
    result_ttl: float = Field(7 * 86400.0, gt=0, description="Seconds a finished run is kept.")
    retries: int = Field(0, ge=0, description="Further attempts.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        "INFO",
        description="Least level of log records that are kept, of loggers to which the flow gives none; where it runs.",
    )


class Settings(BaseSettings):
    """Everything, from ``DISPATCHER__…`` variables.

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

    url: str | None = Field(None, description="Redis or Valkey for records: redis://, rediss://, unix://, sentinel://.")
    broker_url: str | None = Field(None, description="Redis or Valkey for doorbells, where that is another one.")
    embedded: bool = Field(True, description="Without a URL, use the laptop server; false makes that an error.")
    signing_keys: Annotated[
        Json[dict[str, KeySettings]] | None,
        BeforeValidator(settings_errors.once),
        Field(description="JSON: key id → secret (or an object); the first signs."),
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
    kubernetes: KubernetesSettings = Field(default_factory=KubernetesSettings, description="Kubernetes.")
    defaults: DefaultSettings = Field(default_factory=DefaultSettings, description="Defaults of run options.")

    @classmethod
    def load(cls, **given: Any) -> Settings:
        """Read the variables; what is given goes before them, None is not given.

        Raises:
            InvalidSettings: a variable has a wrong value.
        """
        try:
            return cls(**{name: value for name, value in given.items() if value is not None})
        except ValidationError as error:
            raise InvalidSettings(settings_errors.explain(error, cls)) from None
        except SettingsError as error:
            raise InvalidSettings(settings_errors.explain_json(error, cls)) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what is given before the variables, and read nothing else."""
        return init_settings, _Variables(settings_cls)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        return _shown(super().__repr_args__())

    def without_url(self) -> InvalidSettings:
        """The error where a URL is needed and none is set."""
        found = "" if self.embedded else "; DISPATCHER__EMBEDDED=false rules out the laptop server"
        return InvalidSettings(f"no server: set DISPATCHER__URL{found}")

    def but(self, **changes: Any) -> Settings:
        """A copy with some fields changed."""
        return self.model_copy(update=changes)
