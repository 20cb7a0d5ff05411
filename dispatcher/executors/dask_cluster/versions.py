"""The versions that a worker must share with its scheduler: what one pickles, the other opens. Knows no Dask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_NAMES = {"python": "Python", "dask": "dask", "distributed": "distributed", "cloudpickle": "cloudpickle"}


def version_problem(worker: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """Say how a worker's versions differ from the scheduler's, with a remedy; empty if they don't.

    Args:
        worker: the worker's name.
        theirs: its versions, as ``distributed.versions.get_versions`` returns them.
        ours: the scheduler's.
    """
    there, here = theirs.get("packages") or {}, ours["packages"]
    different = [name for name in _NAMES if there.get(name) != here.get(name)]
    if not different:
        return ""
    pairs = ", ".join(
        f"{_NAMES[name]} {_shown(name, there.get(name))} instead of {_shown(name, here.get(name))}"
        for name in different
    )
    return f"Dask worker {worker} has other versions than the flow's container: {pairs}; run both from one image"


def _shown(name: str, version: Any) -> str:
    if not isinstance(version, str):
        return "none"
    return version.removesuffix(".final.0") if name == "python" else version
