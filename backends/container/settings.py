"""Settings that every backend of containers has, in a group of its own."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from dispatcher.settings import SECRET, SettingsGroup


class ContainerSettings(SettingsGroup):
    """Base of the settings of a backend whose runs start in containers."""

    image: str | None = Field(None, description="Image of runs that name none; else flow-dispatcher-runner:VERSION.")
    url: str | None = Field(
        None,
        description="Redis or Valkey for containers, best as its user `runner`; else DISPATCHER__URL.",
        json_schema_extra=SECRET,
    )
    ca_file: Path | None = Field(
        None, description="PEM file of the authority that containers check that server against."
    )
