"""The parts that all runs of one submit or map share, and their specs, of which the common part is written once. Pure.

Consecutive submits of one flow have the same plan, too: to write a spec anew takes as long as to sign and send it.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import replace

from dispatcher.errors import InvalidInput
from dispatcher.runs.spec import Spec
from dispatcher.runs.value import Value
from dispatcher.support.escaping import encodable

# Places in a spec that is written. Random, so that nothing else in it can hold one.
_ID, _CODEC = uuid.uuid4().hex, uuid.uuid4().hex

#: The parameters of a spec that waits for some.
NONE_YET = Value(codec=_CODEC)

_dump = json.JSONEncoder(separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode  # as Spec.to_bytes


class Plan:
    """A spec without run id and parameters.

    Args:
        spec: says everything else.

    Raises:
        InvalidInput: a text in it isn't Unicode, such as the name of a file that isn't UTF-8; names the part.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = replace(spec, run_id=_ID, parameters=NONE_YET)
        try:
            written = self.spec.to_bytes()
        except UnicodeEncodeError:
            raise InvalidInput(_not_unicode(spec)) from None
        self._head, rest = written.split(_dump(NONE_YET.to_json()).encode())
        self._middle, self._tail = rest.split(_ID.encode())

    def made(self, run_id: str, parameters: Value) -> tuple[Spec, bytes]:
        """One run's spec, and its bytes as :meth:`Spec.to_bytes` writes them."""
        spec = object.__new__(Spec)  # not replace(): every run of a map comes by here
        spec.__dict__.update(self.spec.__dict__, run_id=run_id, parameters=parameters)
        if parameters.blob is not None:
            spec.__dict__["blobs"] = (*self.spec.blobs, parameters.blob)
            return spec, spec.to_bytes()
        written = _dump(parameters.to_json()).encode()
        return spec, b"".join((self._head, written, self._middle, run_id.encode(), self._tail))


def _not_unicode(spec: Spec) -> str:
    for part in ("environment", "storage"):
        text = _dump(getattr(spec, part))
        if text != encodable(text):
            return f"{part}: holds a lone surrogate, which is no text: {getattr(spec, part)!r}; write it in UTF-8"
    return "the run: an option or the flow's location holds a lone surrogate, which is no text; write it in UTF-8"
