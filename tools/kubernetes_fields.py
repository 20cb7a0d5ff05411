"""Write ``backends/kubernetes/fields.json``: every field of a Job, from the models of the ``kubernetes`` package.

Run ``python -m tools.kubernetes_fields`` when the SDK's minor version changes. The package's models are generated from
the Kubernetes OpenAPI, so the table has all fields of the newest server of that version.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent.parent / "backends" / "kubernetes" / "fields.json"
ROOT = "V1Job"

#: Amounts, which the API accepts as text and as numbers; the models declare text.
QUANTITIES = frozenset({"limits", "requests", "overhead", "sizeLimit", "divisor", "capacity"})

_SCALARS = {"str": "str", "int": "int", "bool": "bool", "float": "float", "object": "any", "datetime": "str"}


def table() -> dict[str, Any]:
    """Return the content of the file. ``types`` maps model to field to type, for all models that a Job reaches. A type
    is a scalar, ``[T]``, ``{T}`` or a model's name."""
    import kubernetes
    from kubernetes import client

    types: dict[str, dict[str, str]] = {}
    waiting = [ROOT]
    while waiting:
        name = waiting.pop()
        if name not in types:
            model = getattr(client, name)
            types[name] = fields(model.openapi_types, model.attribute_map)
            waiting += [inner for text in types[name].values() if (inner := text.strip("[]{}"))[0].isupper()]
    return {"sdk": ".".join(kubernetes.__version__.split(".")[:2]), "root": ROOT, "types": types}


def fields(types: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str]:
    """Return the types of a model's fields, by their names in YAML."""
    return {names[own]: _type(text, names[own]) for own, text in sorted(types.items(), key=lambda item: names[item[0]])}


def _type(text: str, name: str) -> str:
    if match := re.fullmatch(r"List\[(.+)\]", text):
        return f"[{_type(match[1], '')}]"
    if match := re.fullmatch(r"Dict\[str, (.+)\]", text):
        return f"{{{_type(match[1], name)}}}"
    return "quantity" if name in QUANTITIES else _SCALARS.get(text, text)


def text() -> str:
    """Return the file's text: one line per model, so that diffs are readable."""
    content = table()
    lines = [f"  {json.dumps(name)}: {json.dumps(content['types'][name])}" for name in sorted(content["types"])]
    body = ",\n".join(lines)
    return f'{{"sdk": "{content["sdk"]}", "root": "{content["root"]}", "types": {{\n{body}\n}}}}\n'


def main() -> int:
    """Write the table."""
    PAGE.write_text(text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
