"""The command in this process, and flows for it."""

from __future__ import annotations

from click.testing import CliRunner, Result

from dispatcher.cli.root import root

FLOWS = """
from __future__ import annotations
import sys
from typing import Optional
from dispatcher import flow

@flow
def greet(name: str, times: int = 1, title: Optional[str] = None, extra=None) -> dict:
    print("hello", name)
    return {"said": [f"{title or ''}{name}"] * times, "extra": extra}

@flow
def breaks():
    raise ValueError("no such luck")

@flow
def odd() -> set:
    return {1}

@flow
def leaves():
    sys.exit(7)

def plain(): ...
"""


def call(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(root, list(arguments), prog_name="dispatcher")
