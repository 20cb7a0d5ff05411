"""Runs the code blocks of one page, in order, in the current directory; a program of its own.

``python`` blocks share a namespace that presents itself as ``__main__``, so that what they define travels as it would
from a user's script. Exit status 1 names the block that failed. With ``--cluster`` only those run that need one.
"""

from __future__ import annotations

import linecache
import subprocess
import sys
import traceback
from pathlib import Path
from types import ModuleType

from tests.docs.blocks import Block, blocks


def main(path: str, *options: str) -> int:
    """Run a page."""
    page = Path(path)
    namespace = ModuleType("__main__")
    sys.modules["__main__"] = namespace
    started: list[subprocess.Popen[bytes]] = []
    try:
        for block in blocks(page.name, page.read_text(encoding="utf-8")):
            if block.on_cluster if "--cluster" in options else block.runs:
                print(f"--- {block.page}:{block.line} {block.title}", flush=True)  # noqa: T201
                _run(block, namespace, started)
    except Exception:
        traceback.print_exc()
        return 1
    finally:
        for process in started:
            process.terminate()
            process.wait(30)
    return 0


def _run(block: Block, namespace: ModuleType, started: list[subprocess.Popen[bytes]]) -> None:
    if block.title:
        Path(block.title).write_text(block.code, encoding="utf-8")
    elif block.language == "python":
        name = f"{block.page}:{block.line}"
        linecache.cache[name] = (len(block.code), None, block.code.splitlines(keepends=True), name)
        exec(compile(block.code, name, "exec"), vars(namespace))
    elif block.background:
        started.append(subprocess.Popen(["bash", "-eu", "-c", f"exec {block.code}"]))
    else:
        status = subprocess.run(["bash", "-eu", "-o", "pipefail", "-c", block.code], check=False).returncode
        assert status == block.exits, f"{block.page}:{block.line}: exit status {status}, expected {block.exits}"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
