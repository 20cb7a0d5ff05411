"""``python -m tests.chaos.submitter FOLDER KEY``: a client process that submits one run, to die over it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from dispatcher import Dispatcher, LocalEnvironment
from tests.chaos.flows import callbacks, marked

if __name__ == "__main__":
    folder, key = Path(sys.argv[1]), sys.argv[2]
    with Dispatcher() as client:
        given: dict[str, Any] = callbacks(folder)
        environment = LocalEnvironment(**given)
        run = client.submit(marked, {"folder": str(folder)}, environment=environment, idempotency_key=key)
        sys.stdout.write(run.id)
