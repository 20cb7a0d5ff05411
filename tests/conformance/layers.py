"""A DockerStorage for tests outside of an image: the files of the image are written here."""

from __future__ import annotations

from pathlib import Path

from dispatcher import DockerStorage


class Layers(dict[str, bytes]):
    """The files of an image, by path; written on assignment."""

    def __setitem__(self, path: str, data: bytes) -> None:
        super().__setitem__(path, data)
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_bytes(data)


def in_its_image(directory: Path) -> DockerStorage:
    """Return a storage that stores flows in ``directory``."""
    storage = DockerStorage(directory=str(directory))
    storage.sealed = Layers()
    return storage
