"""Pickles are opened only sealed, and only by who wants to: results as their callers ask for them, files as the command
line reads them; on a real server."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from dispatcher import Dispatcher, FlowFailed, InvalidInput, LocalEnvironment, Run, flow
from tests.integration.hand import Hand
from tests.integration.test_cli import Shell, shell, worker
from tests.integration.test_client import add, client, fail, hand, settings
from tests.integration.workers import Worker

__all__ = ["client", "hand", "settings", "shell", "worker"]

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore:No live worker")]


class Trap:
    """Leaves a file where it is opened."""

    def __init__(self, file: str) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (Path(self.file),)


@flow
def trap(file: str) -> Any:
    return Trap(file)


async def result_of(run: Run[Any]) -> Any:
    return await run


def test_plain_opens_no_pickle(client: Dispatcher, hand: Hand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the argument, or by the setting for all of a program; the argument goes before it."""
    file = tmp_path / "opened"
    plain, odd, failed = client.submit(add, {"a": 1}), client.submit(trap, {"file": str(file)}), client.submit(fail)
    client.wait([plain, odd, failed], timeout=20)
    assert plain.result(plain=True) == 3
    assert odd.exception(plain=True) is None
    with pytest.raises(InvalidInput, match=rf"result of run {odd.id} isn't JSON .*: plain=True refuses"):
        odd.result(plain=True)
    refused = failed.exception(plain=True)
    assert refused is not None
    assert refused.__cause__ is None
    assert "LookupError: nothing there" in str(refused)
    assert "in fail" in refused.traceback
    monkeypatch.setenv("DISPATCHER__RESULTS__PLAIN", "true")
    with Dispatcher() as careful:
        assert careful.get(plain.id).result() == 3
        with pytest.raises(InvalidInput, match=r"DISPATCHER__RESULTS__PLAIN refuses that.*result\(plain=False\)"):
            careful.get(odd.id).result()
        with pytest.raises(InvalidInput, match="DISPATCHER__RESULTS__PLAIN refuses that"):
            asyncio.run(result_of(careful.get(odd.id)))
        with pytest.raises(FlowFailed) as caught:
            careful.get(failed.id).result()
        assert caught.value.__cause__ is None
        assert "DISPATCHER__RESULTS__PLAIN" in "".join(caught.value.__notes__)
        assert [run.id for run in careful.as_completed([careful.get(odd.id)], timeout=20)] == [odd.id]
        assert not file.exists()
        careful.get(odd.id).result(plain=False)
        assert file.exists()


def test_sealed_code_in_a_file_is_not_signed_unseen(shell: Shell, worker: Worker) -> None:
    mark = shell.cwd / "ran"

    def theirs() -> None:
        mark.touch()

    environment = LocalEnvironment(on_exit=theirs)
    text = json.dumps(environment.to_json())
    assert '"sealed"' in text
    (shell.cwd / "theirs.json").write_text(text)
    given = ("flows:greet", "-p", "name=x", "--environment", "theirs.json")
    for command in ("run", "submit", "render"):
        done = shell(command, *given, code=2)
        assert "theirs.json holds sealed code (on_exit), which your key would sign" in done.stderr
    assert shell.json("list") == []
    assert not mark.exists()
    shell.json("run", *given, "--allow-sealed")
    assert mark.exists()
