"""Groups of the commands for ``--help``, and an example of each."""

from __future__ import annotations

from collections.abc import Mapping

#: Groups of commands, in the order in which people need them.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "Run flows": ("run", "submit", "cancel"),
    "Look at runs": ("list", "show", "logs", "events", "explain"),
    "Look before a run": ("render", "bundle", "build"),
    "Serve": ("worker", "status", "up", "down", "flower", "gc"),
    "Set up": ("init", "keygen", "doctor", "admin", "completion"),
}

#: An example of each command.
EXAMPLES: Mapping[str, str] = {
    "run": "dispatcher run flows.py:greet -p name=Ada",
    "submit": "dispatcher submit flows.py:train --on gpu --retries 2 --timeout 2h",
    "cancel": "dispatcher cancel @last",
    "list": "dispatcher list --flow greet --state failed --since 2h",
    "show": "dispatcher show @last",
    "logs": "dispatcher logs @last -f --tail 20",
    "events": "dispatcher events @last -f",
    "explain": "dispatcher explain @last",
    "render": "dispatcher render flows.py:train --on kubernetes",
    "bundle": "dispatcher bundle flows.py:greet",
    "build": "dispatcher build flows.py:train --output storage.json",
    "worker": "dispatcher worker --backend kubernetes --label eu",
    "status": "dispatcher status",
    "up": "dispatcher up",
    "down": "dispatcher down",
    "flower": "dispatcher flower",
    "gc": "dispatcher gc --backend kubernetes",
    "init": "dispatcher init",
    "keygen": "dispatcher keygen --file dispatcher-keys.json",
    "doctor": "dispatcher doctor --backend kubernetes",
    "admin": "dispatcher admin install",
    "completion": 'eval "$(dispatcher completion bash)"',
}
