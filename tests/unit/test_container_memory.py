"""Memory of a container, by the files of both versions of control groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from dispatcher.runner.container.memory import limit, oom_kills, oom_message

V1 = {
    "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
    "memory/memory.limit_in_bytes": "134217728\n",
}
V2 = {
    "memory.events": "low 0\nhigh 0\nmax 12\noom 4\noom_kill 3\noom_group_kill 0\n",
    "memory.max": "134217728\n",
}


def tree(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return str(root)


@pytest.mark.parametrize("files", [V1, V2])
def test_both_versions_count_kills_and_name_the_limit(tmp_path: Path, files: dict[str, str]) -> None:
    root = tree(tmp_path, files)
    assert (oom_kills(root), limit(root)) == (3, 134217728)
    assert oom_message(root) == "out of memory: a process was killed at the container's limit of 128 MiB"


@pytest.mark.parametrize(
    "files", [{}, {"memory.max": "max\n"}, {"memory/memory.limit_in_bytes": "9223372036854771712\n"}]
)
def test_a_container_without_a_limit_names_none(tmp_path: Path, files: dict[str, str]) -> None:
    root = tree(tmp_path, files)
    assert (oom_kills(root), limit(root)) == (0, None)
    assert "limit" not in oom_message(root)
