"""The image that runs a flow."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Any

from backends.container.errors import refused
from backends.container.settings import ContainerSettings
from dispatcher.errors import DispatcherError
from dispatcher.runs.attempt import Attempt


def image_of(attempt: Attempt, group: ContainerSettings, *, template: str | None = None) -> str:
    """Return the image of the storage or of the environment, else of the user's own template, else of the settings.

    Args:
        attempt: the attempt.
        group: the backend's settings.
        template: the image in the user's own Job, task definition or the like.

    Raises:
        Permanent: the storage's image isn't known, or both storage and environment name one.
    """
    of_environment = attempt.environment.get("image")
    of_storage = _image_of_storage(attempt.storage)
    if of_storage and of_environment:
        raise refused(
            f"image {of_environment}: the flow's storage brings its own image ({of_storage}); give one of them"
        )
    return str(of_storage or of_environment or template or default_image(group))


def default_image(group: ContainerSettings) -> str:
    """Return the image of runs that name none."""
    return group.image or _runner_image()


@cache
def _runner_image() -> str:
    return f"flow-dispatcher-runner:{version('flow-dispatcher')}"  # it reads files


def _image_of_storage(storage: Mapping[str, Any]) -> str | None:
    if not storage:
        return None
    from dispatcher.storage.base import from_json

    try:
        return from_json(storage, stored=True).image
    except DispatcherError as error:
        raise refused(f"storage: {error}") from None
