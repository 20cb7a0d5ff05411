"""The Docker engine: builds, checks, pushes and runs images of flows. The only user of the Docker SDK.

Credentials of registries are those of ``docker login``, which the SDK reads itself; none are given here.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from dispatcher.errors import InvalidInput, MissingExtra
from dispatcher.storage import answer
from dispatcher.storage.answer import ChildDied

_TIMEOUT = 60.0  # seconds for one answer of the engine
_PUSH = 3600  # seconds between two lines of a push or a build
_LINES = 30  # of a failed build's output that are shown
_ANSWER = "/tmp/dispatcher-answer"
_ARCHIVE = 2**20  # bytes that an archive of one file adds to it, at most

#: Variables that describe this machine, not the flow's environment.
_OURS = frozenset(
    {"PATH", "HOME", "PWD", "OLDPWD", "SHLVL", "USER", "LOGNAME", "SHELL", "HOSTNAME", "TMPDIR", "TERM",
     "LD_LIBRARY_PATH", "VIRTUAL_ENV", "DOCKER_HOST", "DOCKER_CONFIG"}
)  # fmt: skip


@dataclass(frozen=True)
class Base:
    """An image to build on, and the user it runs as."""

    id: str
    user: str


class Engine:
    """A Docker engine.

    Args:
        base_url: its address; None: as ``docker`` finds it.

    Raises:
        MissingExtra: the Docker SDK isn't installed.
        InvalidInput: it doesn't answer.
    """

    def __init__(self, base_url: str | None = None) -> None:
        try:
            import docker
            import docker.errors
        except ImportError as error:
            raise MissingExtra("DockerStorage needs docker: pip install 'flow-dispatcher[docker]'") from error
        self._errors = docker.errors
        where = base_url or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
        try:
            if where.startswith("unix://"):
                Path(
                    "/" + where.removeprefix("unix://").lstrip("/")
                ).stat()  # the SDK leaks a socket where there is none
            self._client = (
                docker.from_env(timeout=_TIMEOUT) if base_url is None else docker.DockerClient(where, timeout=_TIMEOUT)
            )
        except (docker.errors.DockerException, OSError) as error:
            raise InvalidInput(
                f"DockerStorage: no Docker engine answers at {where}: start one, or name it with base_url or "
                f"DOCKER_HOST ({_short(error)})"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def base(self, name: str, *, pull: bool) -> Base:
        """The image called ``name``, pulled first if that is asked for; one that is only here will do."""
        if pull:
            try:
                self._follow(self._client.api.pull(name, stream=True, decode=True), f"pull of {name}")
            except (InvalidInput, self._errors.APIError) as error:
                if not self._has(name):
                    raise InvalidInput(f"DockerStorage.base_image: {name} can't be pulled: {_short(error)}") from error
        return self._base(name, "DockerStorage.base_image")

    def build_dockerfile(self, path: str, kwargs: Mapping[str, Any]) -> Base:
        """The image that a user's own Dockerfile makes, with the current directory as its context."""
        if not Path(path).is_file():
            raise InvalidInput(f"DockerStorage.dockerfile: there is no file {path!r}")
        image = self._build(
            f"DockerStorage.dockerfile {path}", path=".", dockerfile=str(Path(path).absolute()), **kwargs
        )
        return self._base(image, "DockerStorage.dockerfile")

    def build(self, context: bytes, kwargs: Mapping[str, Any]) -> str:
        """Build an archive; the image's id.

        Raises:
            InvalidInput: it failed; the message ends with what was printed last.
        """
        return self._build("DockerStorage.build", fileobj=io.BytesIO(context), custom_context=True, **kwargs)

    def check(self, image: str, locations: Sequence[str]) -> None:
        """Load the flows in the image, with the Python and the cloudpickle that sealed them.

        Raises:
            InvalidInput: one doesn't load there; says why.
        """
        import cloudpickle

        job = json.dumps({"cloudpickle": cloudpickle.__version__, "locations": list(locations)})
        code, output = self._run(image, ["check", job], {})
        if code:
            raise InvalidInput(
                f"DockerStorage: the flow doesn't load in the image that was built: {output.strip()[-2000:]}"
            )

    def tag(self, image: str, repository: str, tag: str) -> None:
        """Name an image.

        Raises:
            InvalidInput: the engine refuses the name.
        """
        with self._said(f"DockerStorage: {repository}:{tag}"):
            self._client.api.tag(image, repository, tag)

    def push(self, repository: str, tag: str) -> str:
        """Push an image; its digest in the registry.

        Raises:
            InvalidInput: the registry refuses it, or doesn't answer.
        """
        digest = ""
        with self._said(f"DockerStorage: push of {repository}:{tag}"):
            for line in self._follow(
                self._client.api.push(repository, tag=tag, stream=True, decode=True), f"push of {repository}:{tag}"
            ):
                digest = (line.get("aux") or {}).get("Digest") or digest
        if not digest:
            raise InvalidInput(f"DockerStorage: push of {repository}:{tag}: the registry gave no digest")
        return digest

    def run_flow(self, image: str, location: str, variables: Mapping[str, str], *, most: int) -> Any:
        """Run a flow in a container of its own.

        Args:
            image: its image.
            location: the flow's address in it.
            variables: of this process; those of our own and of this machine stay outside.
            most: bytes of a result.

        Returns:
            What :func:`dispatcher.storage.answer.read` gives: whatever isn't JSON stays unopened.

        Raises:
            ChildDied: the container ended without an answer.
            RaisedInside: the flow raised.
        """
        given = {name: value for name, value in variables.items() if name not in _OURS and _passes(name)}
        with self._said(f"DockerStorage: {image}"):
            if not self._has(image):
                self._follow(self._client.api.pull(image, stream=True, decode=True), f"pull of {image}")
            data = self._answer(image, location, given, most + answer.LONGEST_LINE)
        return answer.read(data)

    def _answer(self, image: str, location: str, variables: Mapping[str, str], most: int) -> bytes:
        container = self._client.containers.create(
            image, _command(["run", location, _ANSWER]), environment=dict(variables), entrypoint=[]
        )
        try:
            container.start()
            self._show(container)
            code = container.wait()["StatusCode"]
            try:
                stream, facts = container.get_archive(_ANSWER)
            except self._errors.NotFound:
                raise ChildDied(f"the flow's container ended without an answer, with exit code {code}") from None
            with closing(stream):  # else the engine goes on packing, and can't remove the container meanwhile
                if facts["size"] > most:
                    raise ChildDied(
                        f"the flow's answer has {facts['size']:,} bytes, more than a result may have "
                        "(DISPATCHER__LIMITS__RESULT)"
                    )
                return _only_file(_bounded(stream, most + _ARCHIVE))
        finally:
            container.remove(force=True)

    def _show(self, container: Any) -> None:
        """Print what the container does, as it does, until it ends."""
        from docker.utils.socket import frames_iter

        stream = container.attach_socket(params={"stdout": 1, "stderr": 1, "stream": 1, "logs": 1})
        try:
            for number, data in frames_iter(stream, tty=False):
                print(data.decode(errors="replace"), end="", file=sys.stderr if number == 2 else sys.stdout)
        finally:
            stream._response.close()  # the SDK hands out the socket of a response that it forgets
            stream.close()

    def _run(self, image: str, arguments: Sequence[str], variables: Mapping[str, str]) -> tuple[int, str]:
        with self._said(f"DockerStorage: {image}"):
            container = self._client.containers.create(
                image, _command(arguments), environment=dict(variables), entrypoint=[], network_mode="none"
            )
            try:
                container.start()
                code = container.wait(timeout=_PUSH)["StatusCode"]
                return code, container.logs().decode(errors="replace")
            finally:
                container.remove(force=True)

    def _build(self, what: str, **given: Any) -> str:
        image, said = "", []
        with self._said(what):
            for line in self._client.api.build(rm=True, forcerm=True, decode=True, timeout=_PUSH, **given):
                said.append(str(line.get("stream") or line.get("error") or ""))
                image = (line.get("aux") or {}).get("ID") or image
                if "error" in line:
                    last = "".join(said).strip().splitlines()[-_LINES:]
                    raise InvalidInput(f"{what}: the build failed:\n" + "\n".join(last))
        return image

    def _follow(self, lines: Iterable[Mapping[str, Any]], what: str) -> list[Mapping[str, Any]]:
        seen = []
        for line in lines:
            if "error" in line:
                said = str(line["error"])
                login = "; log in with `docker login`" if _is_denied(said) else ""
                raise InvalidInput(f"DockerStorage: {what} failed: {said}{login}")
            seen.append(line)
        return seen

    def _has(self, name: str) -> bool:
        try:
            self._client.api.inspect_image(name)
        except self._errors.ImageNotFound:
            return False
        return True

    def _base(self, name: str, what: str) -> Base:
        with self._said(f"{what}: {name}"):
            found = self._client.api.inspect_image(name)
        return Base(found["Id"], (found.get("Config") or {}).get("User") or "")

    @contextmanager
    def _said(self, what: str) -> Iterator[None]:
        """No error of the SDK leaves this module."""
        try:
            yield
        except (self._errors.DockerException, OSError) as error:
            raise InvalidInput(f"{what}: {_short(error)}") from error


def _command(arguments: Sequence[str]) -> list[str]:
    return ["python3", "-P", "-m", "dispatcher.storage.docker.in_image", *arguments]


def _passes(name: str) -> bool:
    """Return True if a variable is for the flow: neither our own settings, which hold credentials and are read in any
    case, nor Python's."""
    from dispatcher.storage.base import PARAMETERS

    return name == PARAMETERS or not name.upper().startswith(("DISPATCHER__", "PYTHON", "CONDA"))


def _is_denied(said: str) -> bool:
    return any(word in said.lower() for word in ("denied", "unauthorized", "no basic auth", "authentication"))


def _bounded(stream: Iterable[bytes], most: int) -> bytes:
    """All of ``stream``, which may be more than was announced."""
    parts, size = [], 0
    for part in stream:
        size += len(part)
        if size > most:
            raise ChildDied("the flow's answer is longer than its container said")
        parts.append(part)
    return b"".join(parts)


def _only_file(archive: bytes) -> bytes:
    """Return the content of the archive's first file; empty where the flow left something else in its place."""
    import tarfile

    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
            member = opened.next()
            file = opened.extractfile(member) if member is not None and member.isreg() else None
            return file.read() if file is not None else b""
    except (tarfile.TarError, OSError, ValueError):
        return b""


def _short(error: BaseException) -> str:
    return " ".join(str(getattr(error, "explanation", None) or error).split())[:500]
