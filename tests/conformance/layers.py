"""A DockerStorage in whose image this process seems to stand: what the image would hold is laid out here."""

from __future__ import annotations

from pathlib import Path

from dispatcher import DockerStorage


class Layers(dict[str, bytes]):
    """What an image would hold, by its path in it."""

    def __setitem__(self, path: str, data: bytes) -> None:
        super().__setitem__(path, data)
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_bytes(data)


def in_its_image(directory: Path) -> DockerStorage:
    """One that keeps flows in ``directory``."""
    storage = DockerStorage(directory=str(directory))
    storage.sealed = Layers()
    return storage
