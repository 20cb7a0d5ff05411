"""The spec that all runs of one submit or map share, serialized once; each run fills in its id and parameters. Pure.

Consecutive submits of one flow share a template too: serializing a spec takes as long as signing and sending it.
Made by :mod:`dispatcher.submission.spec_builder`, filled in by :mod:`dispatcher.submission.new_record`.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import replace

from dispatcher.errors import InvalidInput
from dispatcher.runs.spec import Spec
from dispatcher.runs.value import Value
from dispatcher.support.escaping import encodable

# Placeholders in a serialized spec. Random, so that no other part of it can contain one.
_ID, _CODEC = uuid.uuid4().hex, uuid.uuid4().hex

#: Placeholder for the parameters of a run.
NO_PARAMETERS = Value(codec=_CODEC)

_dump = json.JSONEncoder(separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode  # as Spec.to_bytes


class SpecTemplate:
    """A spec without run id and parameters.

    Args:
        spec: all other fields.

    Raises:
        InvalidInput: a text in it isn't Unicode, such as the name of a file that isn't UTF-8; names the part.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = replace(spec, run_id=_ID, parameters=NO_PARAMETERS)
        try:
            serialized = self.spec.to_bytes()
        except UnicodeEncodeError:
            raise InvalidInput(_not_unicode(spec)) from None
        self._head, rest = serialized.split(_dump(NO_PARAMETERS.to_json()).encode())
        self._middle, self._tail = rest.split(_ID.encode())

    def fill(self, run_id: str, parameters: Value) -> tuple[Spec, bytes]:
        """Return the spec of one run, and its bytes as :meth:`Spec.to_bytes` gives them."""
        spec = object.__new__(Spec)  # replace() is slower, and a map fills in thousands
        spec.__dict__.update(self.spec.__dict__, run_id=run_id, parameters=parameters)
        if parameters.blob is not None:
            spec.__dict__["blobs"] = (*self.spec.blobs, parameters.blob)
            return spec, spec.to_bytes()
        serialized = _dump(parameters.to_json()).encode()
        return spec, b"".join((self._head, serialized, self._middle, run_id.encode(), self._tail))


def _not_unicode(spec: Spec) -> str:
    for part in ("environment", "storage"):
        text = _dump(getattr(spec, part))
        if text != encodable(text):
            return f"{part}: holds a lone surrogate, which is no text: {getattr(spec, part)!r}; write it in UTF-8"
    return "the run: an option or the flow's location holds a lone surrogate, which is no text; write it in UTF-8"
