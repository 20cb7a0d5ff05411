"""Flows in a Docker image.

Only ``build()`` builds and pushes. It checks that the flows load in the new image before it accepts it. The build
context is made in :mod:`dispatcher.storage.docker.image`, and :mod:`dispatcher.storage.docker.engine` talks to Docker.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar, Self

from dispatcher.errors import InvalidInput, SealBroken
from dispatcher.flows.flow import Flow, as_flow, unpack_flow
from dispatcher.storage.answer import Runner
from dispatcher.storage.base import NoFlowHere, Storage
from dispatcher.support.variables import value_problem

if TYPE_CHECKING:
    from dispatcher.storage.docker.engine import BaseImage, DockerEngine
    from dispatcher.storage.docker.image import ImageContents

#: The directory of flows in an image.
DIRECTORY = "/opt/flows"

_CREDENTIALS = re.compile(r"://[^/\s@]*@")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Characters that a Dockerfile's line can't hold: control characters other than the tab, and lone surrogates.
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


#: True while a flow is sealed. The flow may carry this storage, whose names change when it is built; the flow's code
#: must stay the same.
_packing: ContextVar[bool] = ContextVar("packing", default=False)


class NotInThisImage(NoFlowHere, InvalidInput):
    """This process doesn't run in the image that holds the flow."""


class AnotherInThisImage(NoFlowHere, SealBroken):
    """The file at the flow's path, in its image or on a worker's machine, holds another flow."""


class DockerStorage(Storage):
    """Keeps flows, with the files of their projects, in an image, built from a base image or a Dockerfile.

    A flow's location is its path in the image and the full SHA-256 of its bytes, ``/opt/flows/etl-1f0c….flow#1f0c…``.
    If the image holds another file there, the flow is refused. A storage without ``image`` must be built first, by
    :meth:`build` or ``dispatcher build MODULE:FLOW``. A run carries the image's name, never the arguments of the build.

    Args:
        registry_url: registry, and perhaps a path in it, to push the image to; by default the image stays in the
            engine.
        base_image: the image to build on; by default ``python:<this minor version>-slim``.
        dockerfile: path of a Dockerfile to build on instead, with the current directory as its context.
        python_dependencies: requirements that pip installs.
        image_name: name without registry and tag; by default made from the flow's name.
        image_tag: by default made from the image's content.
        env_vars: variables set in the image. Everybody who has the image can read them: don't put secrets here.
        files: absolute path here → absolute path in the image.
        base_url: address of the Docker engine; by default ``DOCKER_HOST``, as for ``docker``.
        local_image: the base image is only in the engine; don't pull it.
        ignore_healthchecks: don't check in the built image that its flows load.
        image: an image that was built before; ``build()`` sets it.
        digests: path in that image → SHA-256 of the flow there; ``build()`` sets them.
        build_kwargs: further arguments for the Docker SDK's ``build``, such as ``buildargs`` or ``network_mode``.
        directory: the directory of flows in the image.
    """

    in_containers: ClassVar[bool] = True
    added: ClassVar[tuple[str, ...]] = ("registry_url", "image_name", "image_tag", "image", "digests")

    def __init__(  # noqa: PLR0913, PLR0917 - public arguments, positional as in docs
        self,
        registry_url: str | None = None,
        base_image: str | None = None,
        dockerfile: str | None = None,
        python_dependencies: Sequence[str] | None = None,
        image_name: str | None = None,
        image_tag: str | None = None,
        env_vars: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
        base_url: str | None = None,
        local_image: bool = False,
        ignore_healthchecks: bool = False,
        *,
        image: str | None = None,
        digests: Mapping[str, str] | None = None,
        build_kwargs: Mapping[str, Any] | None = None,
        directory: str = DIRECTORY,
    ) -> None:
        super().__init__()
        if base_image and dockerfile:
            raise InvalidInput("DockerStorage: only one of base_image and dockerfile can be given")
        self.registry_url = _check_name("registry_url", registry_url)
        self.base_image = base_image
        self.dockerfile = dockerfile
        self.python_dependencies = _check_dependencies(python_dependencies or ())
        self.image_name = _check_name("image_name", image_name)
        self.image_tag = _check_name("image_tag", image_tag)
        self.env_vars = _check_variables(env_vars or {})
        self.files = _check_files(files or {})
        self.base_url = base_url
        self.local_image = local_image
        self.ignore_healthchecks = ignore_healthchecks
        self.image = _check_name("image", image)
        self.digests = _check_digests(digests or {})
        self.build_kwargs = dict(build_kwargs or {})
        self.directory = directory
        self.sealed: dict[str, bytes] = {}  #: path in the image → the flow and its project's files, as added last
        self._named, self._tagged = image_name is not None, image_tag is not None
        self._built: dict[str, bytes] | None = None
        self._outdated = ""  # why the former image can't be used any more

    @property
    def name(self) -> str:
        """The image's ``registry/name:tag``.

        Raises:
            InvalidInput: the name or the tag isn't known before the build.
        """
        if not self.image_name or not self.image_tag:
            raise InvalidInput(
                "DockerStorage: image_name and image_tag aren't known yet: build() makes what isn't given"
            )
        return f"{self.repository}:{self.image_tag}"

    @property
    def repository(self) -> str:
        """``registry/name``."""
        name = self.image_name or _default_name(list(self.flows))
        return str(PurePosixPath(self.registry_url or "", name))

    @property
    def paths(self) -> dict[str, str]:
        """Path in the image, by flow name, of each flow that this object has added."""
        return {name: location.rpartition("#")[0] for name, location in self.flows.items()}

    def add_flow(self, flow: Flow[..., Any]) -> str:
        from dispatcher.flows.packing import pack_flow

        name = as_flow(flow).name
        token = _packing.set(True)
        try:
            data = pack_flow(flow, bundler=self.bundler)
        finally:
            _packing.reset(token)
        path = f"{self.directory}/{_slug(name)}-{hashlib.sha256(name.encode()).hexdigest()[:8]}.flow"
        self.sealed[path] = data
        self.flows[name] = location = _location(path, self._digest(name, path))
        return location

    def _digest(self, name: str, path: str) -> str:
        """Return the SHA-256 of the flow in the image, or, if no image holds it, of the flow that was added."""
        if self.image is not None and self._built is None:
            if path in self.digests:  # built elsewhere: the same flow, sealed anew here, may have other bytes
                return self.digests[path]
            self._outdated = f"{self.image} isn't known to hold flow {name!r} at {path}"
            self.image = None
        elif self._built is not None and self._built.get(path) != self.sealed[path]:
            self._outdated = "a flow was added or changed since it was built"
            self.image = None
        return hashlib.sha256(self.sealed[path]).hexdigest()

    def get_flow(self, location: str) -> Flow[..., Any]:
        return unpack_flow(self._read(location), subject=f"file {location.rpartition('#')[0]}")

    def kept_bundle(self, location: str) -> bytes | None:
        from dispatcher.serialization import pickles

        return pickles.bundle_in(self._read(location))

    def _read(self, location: str) -> bytes:
        """Read the file at a location in this image, and check its digest."""
        path, _, digest = location.rpartition("#")
        if not path or not _DIGEST.fullmatch(digest):
            raise InvalidInput(f"DockerStorage: a location is '<path>#<SHA-256>' as add_flow gave it, got {location!r}")
        image = self.image or "its image"
        try:
            data = Path(path).read_bytes()
        except (OSError, ValueError):
            raise NotInThisImage(
                f"DockerStorage: there is no flow at {path!r} here: it exists only inside {image}"
            ) from None
        if hashlib.sha256(data).hexdigest() != digest:
            raise AnotherInThisImage(
                f"DockerStorage: {path} holds another flow than was submitted: its SHA-256 isn't {digest}; if {image} "
                "was rebuilt, submit with the storage of the new build"
            )
        return data

    def get_env_runner(self, location: str) -> Runner:
        from dispatcher.settings import Settings
        from dispatcher.storage.docker.engine import DockerEngine

        self.check()

        def run(variables: Mapping[str, str]) -> Any:
            with DockerEngine(self.base_url) as engine:
                return engine.run_flow(str(self.image), location, variables, max_bytes=Settings.load().limits.result)

        return Runner(run)

    def check(self) -> None:
        if self.image is None:
            reason = self._outdated or "it isn't built"
            raise InvalidInput(
                f"DockerStorage: {reason}: call build(), or run `dispatcher build MODULE:FLOW` and submit with the "
                "storage that it writes"
            )

    def build(self, push: bool = True) -> Self:
        """Build the image, check that its flows load in it, and push it if there is a ``registry_url``.

        Args:
            push: False: don't push.

        Raises:
            MissingExtra: the Docker SDK isn't installed.
            InvalidInput: no engine answers, or the build, the check or the push failed; names the reason.
        """
        from dispatcher.storage.docker.engine import DockerEngine
        from dispatcher.storage.docker.image import context

        if not self.flows:
            raise InvalidInput("DockerStorage: there is no flow to build an image of: call add_flow() first")
        digests = {path: hashlib.sha256(data).hexdigest() for path, data in self.sealed.items()}
        flows = {name: _location(path, digests[path]) for name, path in self.paths.items()}
        with DockerEngine(self.base_url) as engine:
            base = self._base(engine)
            image = engine.build(context(self.image_contents(base.id, base.user)), self.build_kwargs)
            if not self.ignore_healthchecks:
                engine.check(image, list(flows.values()))
            if not self._named:
                self.image_name = _default_name(list(self.flows))
            if not self._tagged:
                self.image_tag = image.partition(":")[2][:16]
            engine.tag(image, self.repository, str(self.image_tag))
            digest = engine.push(self.repository, str(self.image_tag)) if push and self.registry_url else ""
            self.image = f"{self.repository}@{digest}" if digest else self.name
        self._built, self.digests, self.flows = dict(self.sealed), digests, flows
        return self

    def image_contents(self, base: str, user: str) -> ImageContents:
        """Return the contents of the image on top of ``base``, which runs as ``user``."""
        from dispatcher.storage.docker.image import ImageContents

        return ImageContents(
            base=base,
            user=user,
            dependencies=self.python_dependencies,
            env_vars=self.env_vars,
            files=self.files,
            sealed=self.sealed,
            paths=self.paths,
        )

    def __hash__(self) -> int:
        return hash((type(self), self.image, self.image_name, self.image_tag))

    def _base(self, engine: DockerEngine) -> BaseImage:
        if self.dockerfile is not None:
            return engine.build_dockerfile(self.dockerfile, self.build_kwargs)
        return engine.base_image(self.base_image or _default_base(), pull=not self.local_image)

    def __reduce__(self) -> Any:
        return (DockerStorage, ()) if _packing.get() else (_from_json, (self.to_json(),))


def _from_json(data: Mapping[str, Any]) -> Storage:
    from dispatcher.storage.base import from_json

    return from_json(data)


def _default_base() -> str:
    from dispatcher.support.interpreter import PYTHON

    return f"python:{PYTHON}-slim"


def _default_name(flows: Sequence[str]) -> str:
    return _slug(flows[0]) if len(flows) == 1 else "flows"


def _location(path: str, digest: str) -> str:
    return f"{path}#{digest}"


def _slug(name: str) -> str:
    """Return a flow's name in the characters that file and image names allow."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower())[:60].strip("-") or "flow"


def _check_name(argument: str, value: str | None) -> str | None:
    if value is not None and (not isinstance(value, str) or not value or re.search(r"\s", value)):
        raise InvalidInput(f"DockerStorage.{argument}: must be a name without spaces, got {value!r}")
    if value is not None and ("://" in value or (argument == "registry_url" and "@" in value)):
        raise InvalidInput(
            f"DockerStorage.{argument}: write host/path, without scheme and credentials (those are `docker login`'s)"
        )
    return value


def _check_dependencies(requirements: Sequence[str]) -> list[str]:
    if isinstance(requirements, str) or not all(
        isinstance(requirement, str) and requirement.strip() and not _CONTROL.search(requirement)
        for requirement in requirements
    ):
        raise InvalidInput(
            "DockerStorage.python_dependencies: must be a list of requirements, without control characters, "
            f"got {requirements!r}"
        )
    for requirement in requirements:
        if _CREDENTIALS.search(requirement):
            raise InvalidInput(
                "DockerStorage.python_dependencies: a requirement's URL holds credentials, which everybody who has the "
                "image could read: give them to pip in a base image of yours, or use an index that needs none"
            )
    return list(requirements)


def _check_variables(variables: Mapping[str, str]) -> dict[str, str]:
    for name, value in variables.items():
        if not _VARIABLE.fullmatch(name) or _CONTROL.search(str(value)):
            raise InvalidInput(
                f"DockerStorage.env_vars: {name!r}: must map a name to a text without control characters"
            )
        if problem := value_problem(name, str(value)):
            raise InvalidInput(f"DockerStorage.env_vars: {name} {problem}")
    return {name: str(value) for name, value in variables.items()}


def _check_files(files: Mapping[str, str]) -> dict[str, str]:
    for source, target in files.items():
        if not Path(source).is_absolute() or not PurePosixPath(target).is_absolute():
            raise InvalidInput(f"DockerStorage.files: {source!r}: {target!r}: both paths must be absolute")
        if _CONTROL.search(target):
            raise InvalidInput(f"DockerStorage.files: {target!r}: a path in the image has no control characters")
    return dict(files)


def _check_digests(digests: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(digests, Mapping) or not all(
        isinstance(digest, str) and _DIGEST.fullmatch(digest) for digest in digests.values()
    ):
        raise InvalidInput(f"DockerStorage.digests: must map paths in the image to SHA-256 in hex, got {digests!r}")
    return dict(digests)
