"""``python -m tests.chaos.submitter FOLDER KEY...``: a client process that submits a run per key, to die over it.

A key's first word is the failpoint that it is for: ``blob.part`` wants parameters of more than one part, and ``map``
stands for a map of more than one portion, whose runs no worker takes. Prints a JSON object of ids by key.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dispatcher import Dispatcher, LocalEnvironment, Run
from tests.chaos.flows import LARGE, callbacks, marked

#: Runs of a map; one more than a portion.
MAPPED = 501

if __name__ == "__main__":
    folder = sys.argv[1]
    account: dict[str, Any] = callbacks(Path(folder))
    environment, nowhere = LocalEnvironment(**account), LocalEnvironment(labels=["nobody"])
    ids: dict[str, list[str]] = {}
    with Dispatcher() as client:
        for key in sys.argv[2:]:
            if key.startswith("map"):
                many = [{"folder": folder}] * MAPPED
                runs: Sequence[Run[int]] = client.map(marked, many, environment=nowhere, idempotency_key=key)
            else:
                ballast = key.ljust(LARGE) if key.startswith("blob.part") else ""  # its own: equal bytes are sent once
                parameters = {"folder": folder, "ballast": ballast}
                runs = [client.submit(marked, parameters, environment=environment, idempotency_key=key)]
            ids[key] = [run.id for run in runs]
    sys.stdout.write(json.dumps(ids))
