"""Set-up of an environment's static infrastructure before a run in this process, once per content.

Only for environments whose class has a ``setup`` of its own and whose runs start in this process. Where runs start
elsewhere, a worker does it through the power :class:`~backends.base.Static` of their backend.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from dispatcher.environments.base import Environment
from dispatcher.storage.base import Storage

#: Most contents that are remembered. One that is forgotten is set up again, which is safe.
_MOST = 1000

_done: OrderedDict[bytes, None] = OrderedDict()


def set_up_once(environment: Environment, storage: Storage, spec: tuple[Mapping[str, Any], Mapping[str, Any]]) -> None:
    """Call ``environment.setup(storage)``, unless this process did so for the same content.

    Args:
        environment: of a run whose signature was checked.
        storage: of its flow.
        spec: both as JSON, as the run has them.

    Raises:
        Exception: what ``setup`` raises; it is called again for the next run.
    """
    if type(environment).setup is Environment.setup:
        return
    content = hashlib.sha256(json.dumps([dict(part) for part in spec], sort_keys=True).encode()).digest()
    if content not in _done:
        environment.setup(storage)
        _done[content] = None
        while len(_done) > _MOST:
            _done.popitem(last=False)
