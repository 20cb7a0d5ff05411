"""The Docker engine: builds, checks, pushes and runs images of flows. The only user of the Docker SDK.

Used by :mod:`dispatcher.storage.docker.storage`. The SDK itself reads the credentials of registries, those of
``docker login``; none are passed here.
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

_REQUEST_TIMEOUT = 60.0  # seconds for one response of the engine
_BUILD_TIMEOUT = 3600  # seconds between two lines of a build, and for a check in an image
_SHOWN_LINES = 30  # last lines of a failed build that its error shows
_ANSWER_PATH = "/tmp/dispatcher-answer"
_ARCHIVE_OVERHEAD = 2**20  # most bytes that an archive adds to one file

#: Variables that describe this machine, not the flow's environment.
_MACHINE_VARIABLES = frozenset(
    {"PATH", "HOME", "PWD", "OLDPWD", "SHLVL", "USER", "LOGNAME", "SHELL", "HOSTNAME", "TMPDIR", "TERM",
     "LD_LIBRARY_PATH", "VIRTUAL_ENV", "DOCKER_HOST", "DOCKER_CONFIG"}
)  # fmt: skip


@dataclass(frozen=True)
class BaseImage:
    """An image to build on, and the user that it runs as."""

    id: str
    user: str


class DockerEngine:
    """A connection to a Docker engine.

    Args:
        base_url: the engine's address; None: the one that ``docker`` uses.

    Raises:
        MissingExtra: the Docker SDK isn't installed.
        InvalidInput: no engine answers.
    """

    def __init__(self, base_url: str | None = None) -> None:
        try:
            import docker
            import docker.errors
        except ImportError as error:
            raise MissingExtra("DockerStorage needs docker: pip install 'flow-dispatcher[docker]'") from error
        self._errors = docker.errors
        address = base_url or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
        try:
            if address.startswith("unix://"):
                # Check that the socket exists: otherwise the SDK leaks one of its own.
                Path("/" + address.removeprefix("unix://").lstrip("/")).stat()
            self._client = (
                docker.from_env(timeout=_REQUEST_TIMEOUT)
                if base_url is None
                else docker.DockerClient(address, timeout=_REQUEST_TIMEOUT)
            )
        except (docker.errors.DockerException, OSError) as error:
            raise InvalidInput(
                f"DockerStorage: no Docker engine answers at {address}: start one, or name it with base_url or "
                f"DOCKER_HOST ({_short(error)})"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def base_image(self, name: str, *, pull: bool) -> BaseImage:
        """Return the image called ``name``. If it can't be pulled, the engine's own copy is used.

        Raises:
            InvalidInput: the engine neither has the image nor can pull it.
        """
        if pull:
            try:
                self._follow(self._client.api.pull(name, stream=True, decode=True), f"pull of {name}")
            except (InvalidInput, self._errors.APIError) as error:
                if not self._has(name):
                    raise InvalidInput(f"DockerStorage.base_image: {name} can't be pulled: {_short(error)}") from error
        return self._inspect_base(name, "DockerStorage.base_image")

    def build_dockerfile(self, path: str, kwargs: Mapping[str, Any]) -> BaseImage:
        """Build a user's own Dockerfile, with the current directory as its context."""
        if not Path(path).is_file():
            raise InvalidInput(f"DockerStorage.dockerfile: there is no file {path!r}")
        image = self._build(
            f"DockerStorage.dockerfile {path}", path=".", dockerfile=str(Path(path).absolute()), **kwargs
        )
        return self._inspect_base(image, "DockerStorage.dockerfile")

    def build(self, context: bytes, kwargs: Mapping[str, Any]) -> str:
        """Build the image of a context, and return its id.

        Raises:
            InvalidInput: the build failed; the message ends with the last lines of its output.
        """
        return self._build("DockerStorage.build", fileobj=io.BytesIO(context), custom_context=True, **kwargs)

    def check(self, image: str, locations: Sequence[str]) -> None:
        """Check that the flows load in the image, with the Python and the cloudpickle that sealed them.

        Raises:
            InvalidInput: a flow can't be loaded there; names the reason.
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
        with self._translated_errors(f"DockerStorage: {repository}:{tag}"):
            self._client.api.tag(image, repository, tag)

    def push(self, repository: str, tag: str) -> str:
        """Push an image, and return its digest in the registry.

        Raises:
            InvalidInput: the registry refuses the image, or doesn't answer.
        """
        digest = ""
        with self._translated_errors(f"DockerStorage: push of {repository}:{tag}"):
            for line in self._follow(
                self._client.api.push(repository, tag=tag, stream=True, decode=True), f"push of {repository}:{tag}"
            ):
                digest = (line.get("aux") or {}).get("Digest") or digest
        if not digest:
            raise InvalidInput(f"DockerStorage: push of {repository}:{tag}: the registry gave no digest")
        return digest

    def run_flow(self, image: str, location: str, variables: Mapping[str, str], *, max_bytes: int) -> Any:
        """Run a flow in a container of its own.

        Args:
            image: the flow's image.
            location: the flow's location in it.
            variables: this process's environment variables. Our own settings and this machine's aren't passed on.
            max_bytes: largest result.

        Returns:
            The result (:func:`dispatcher.storage.answer.decode`). Anything that isn't JSON stays unopened.

        Raises:
            ChildDied: the container ended without an answer.
            RaisedInside: the flow raised.
        """
        passed = {name: value for name, value in variables.items() if name not in _MACHINE_VARIABLES and _passes(name)}
        with self._translated_errors(f"DockerStorage: {image}"):
            if not self._has(image):
                self._follow(self._client.api.pull(image, stream=True, decode=True), f"pull of {image}")
            data = self._answer(image, location, passed, max_bytes + answer.LONGEST_LINE)
        return answer.decode(data)

    def _answer(self, image: str, location: str, variables: Mapping[str, str], max_bytes: int) -> bytes:
        container = self._client.containers.create(
            image, _command(["run", location, _ANSWER_PATH]), environment=dict(variables), entrypoint=[]
        )
        try:
            self._show(container)
            code = container.wait()["StatusCode"]
            try:
                stream, status = container.get_archive(_ANSWER_PATH)
            except self._errors.NotFound:
                raise ChildDied(f"the flow's container ended without an answer, with exit code {code}") from None
            with closing(stream):  # an open stream would keep the engine from removing the container
                if status["size"] > max_bytes:
                    raise ChildDied(
                        f"the flow's answer has {status['size']:,} bytes, more than a result may have "
                        "(DISPATCHER__LIMITS__RESULT)"
                    )
                return _only_file(_bounded(stream, max_bytes + _ARCHIVE_OVERHEAD))
        finally:
            container.remove(force=True)

    def _show(self, container: Any) -> None:
        """Start the container, and print its output as it comes, until it ends.

        The stream is attached first, as ``docker run`` does: one that is attached while the container ends may have no
        end.
        """
        from docker.utils.socket import frames_iter

        stream = container.attach_socket(params={"stdout": 1, "stderr": 1, "stream": 1})
        try:
            container.start()
            for number, data in frames_iter(stream, tty=False):
                print(data.decode(errors="replace"), end="", file=sys.stderr if number == 2 else sys.stdout)
        finally:
            stream._response.close()  # the SDK returns the socket of a response that it never closes
            stream.close()

    def _run(self, image: str, arguments: Sequence[str], variables: Mapping[str, str]) -> tuple[int, str]:
        with self._translated_errors(f"DockerStorage: {image}"):
            container = self._client.containers.create(
                image, _command(arguments), environment=dict(variables), entrypoint=[], network_mode="none"
            )
            try:
                container.start()
                code = container.wait(timeout=_BUILD_TIMEOUT)["StatusCode"]
                return code, container.logs().decode(errors="replace")
            finally:
                container.remove(force=True)

    def _build(self, subject: str, **options: Any) -> str:
        image, output = "", []
        with self._translated_errors(subject):
            for line in self._client.api.build(rm=True, forcerm=True, decode=True, timeout=_BUILD_TIMEOUT, **options):
                output.append(str(line.get("stream") or line.get("error") or ""))
                image = (line.get("aux") or {}).get("ID") or image
                if "error" in line:
                    last_lines = "".join(output).strip().splitlines()[-_SHOWN_LINES:]
                    raise InvalidInput(f"{subject}: the build failed:\n" + "\n".join(last_lines))
        return image

    def _follow(self, lines: Iterable[Mapping[str, Any]], operation: str) -> list[Mapping[str, Any]]:
        """Return all progress lines of an operation; raise InvalidInput if one reports an error."""
        progress = []
        for line in lines:
            if "error" in line:
                message = str(line["error"])
                login = "; log in with `docker login`" if _is_denied(message) else ""
                raise InvalidInput(f"DockerStorage: {operation} failed: {message}{login}")
            progress.append(line)
        return progress

    def _has(self, name: str) -> bool:
        try:
            self._client.api.inspect_image(name)
        except self._errors.ImageNotFound:
            return False
        return True

    def _inspect_base(self, name: str, subject: str) -> BaseImage:
        with self._translated_errors(f"{subject}: {name}"):
            image = self._client.api.inspect_image(name)
        return BaseImage(image["Id"], (image.get("Config") or {}).get("User") or "")

    @contextmanager
    def _translated_errors(self, subject: str) -> Iterator[None]:
        """Raise InvalidInput instead of an error of the SDK. No such error leaves this module."""
        try:
            yield
        except (self._errors.DockerException, OSError) as error:
            raise InvalidInput(f"{subject}: {_short(error)}") from error


def _command(arguments: Sequence[str]) -> list[str]:
    return ["python3", "-P", "-m", "dispatcher.storage.docker.in_image", *arguments]


def _passes(name: str) -> bool:
    """Return True if a variable is meant for the flow.

    Python's aren't, nor are our own settings, which hold credentials.
    """
    from dispatcher.storage.base import PARAMETERS

    return name == PARAMETERS or not name.upper().startswith(("DISPATCHER__", "PYTHON", "CONDA"))


def _is_denied(message: str) -> bool:
    return any(word in message.lower() for word in ("denied", "unauthorized", "no basic auth", "authentication"))


def _bounded(stream: Iterable[bytes], max_bytes: int) -> bytes:
    """Read all of ``stream``, which may be longer than its announced size."""
    parts, size = [], 0
    for part in stream:
        size += len(part)
        if size > max_bytes:
            raise ChildDied("the flow's answer is longer than its container announced")
        parts.append(part)
    return b"".join(parts)


def _only_file(archive: bytes) -> bytes:
    """Return the content of the archive's first file; empty if the flow put something else in its place."""
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
