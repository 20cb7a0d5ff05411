"""Tasks and a Dask graph on a Dask cluster: run it with a ``RemoteEnvironment`` whose executor is ``DaskExecutor``."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import dask

from dispatcher import context, flow, gather, task
from examples.word_count import words


@task
def measure(path: str) -> tuple[str, int, int]:
    """Return the file, the number of its words, and the id of the process that counted them."""
    return path, len(words(path)), os.getpid()


@flow(tags=["demo"])
def vocabulary(paths: list[str]) -> dict[str, Any]:
    """Count the words of all files by tasks, and the distinct ones by a Dask graph."""
    measured = gather(measure.map(paths))
    context.logger.info("%d processes of the cluster took part", len({pid for _, _, pid in measured}))
    counted = [dask.delayed(Counter)(dask.delayed(words)(path)) for path in paths]
    return {
        "words": sum(number for _, number, _ in measured),
        "different": dask.delayed(len)(dask.delayed(sum)(counted, Counter())),  # the executor computes it
    }
