"""Key files and directories as ssh checks them, and secrets as container engines mount them."""

from __future__ import annotations

import grp
import json
import os
import pwd
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dispatcher import laptop
from dispatcher.admin.doctor import examine
from dispatcher.errors import InvalidSettings
from dispatcher.inspection.finding import Level
from dispatcher.laptop.paths import LaptopPaths
from dispatcher.serialization import KeyRing
from dispatcher.settings import Settings
from dispatcher.support import private_files
from dispatcher.support.private_files import FileStatus, Reader, file_problem, path_problem
from workers.pool.interrupts import InterruptChannel

US, STRANGER, TEAM = 1000, 12345, 2000
KEYS = json.dumps({"a": "a secret of sixteen bytes"})

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


def as_user(uid: int, group: int, call: Callable[[], object]) -> str:
    """Return the result of ``call``, or the text of its error, in a process of another user."""
    assert grp is not None, "imported before: another user may not reach the library"
    assert pwd is not None
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            os.setgroups([group])
            os.setgid(group)
            os.setuid(uid)
            text = str(call())
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        text = answer.read()
    os.waitpid(pid, 0)
    return text


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that every user reaches, ours alone to write."""
    with tempfile.TemporaryDirectory(prefix="dsp-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def keys_in(directory: Path, mode: int = 0o600, owner: int = -1, group: int = -1) -> Path:
    path = directory / "keys.json"
    path.write_text(KEYS)
    if owner >= 0 or group >= 0:
        os.chown(path, owner, group)
    path.chmod(mode)
    return path


def ring(path: Path) -> KeyRing:
    return KeyRing.from_settings(Settings.load(signing_keys_file=path))


def seen(kind: int, mode: int, uid: int, gid: int, *, fixed: bool = False) -> FileStatus:
    return FileStatus(path=Path("/some/file"), mode=kind | mode, uid=uid, gid=gid, fixed=fixed)


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "outside", "contained"),
    [
        (0o600, US, US, "", ""),
        (0o400, US, US, "", ""),
        (0o640, US, US, "read by others", "read by others"),
        (0o604, US, US, "read by others", "read by others"),
        (0o620, US, US, "written by others", "written by others"),
        (0o602, US, US, "written by others", "written by others"),
        (0o600, STRANGER, US, "another user", "another user"),
        (0o644, STRANGER, US, "another user", "another user"),
        (0o400, 0, 0, "", ""),
        (0o440, 0, TEAM, "", ""),  # Kubernetes with fsGroup
        (0o640, 0, TEAM, "", ""),
        (0o644, 0, 0, "read by others", ""),  # Kubernetes' default mode
        (0o444, 0, 0, "read by others", ""),  # swarm's secrets
        (0o660, 0, TEAM, "written by others", "written by others"),
        (0o666, 0, 0, "written by others", "written by others"),
    ],
)
def test_which_files_may_hold_a_secret(mode: int, uid: int, gid: int, outside: str, contained: str) -> None:
    file = seen(stat.S_IFREG, mode, uid, gid)
    for reader, expected in ((Reader(uid=US), outside), (Reader(uid=US, contained=True), contained)):
        problem = file_problem(file, reader)
        assert bool(problem) == bool(expected), problem
        if problem:
            assert expected in problem
            assert f"/some/file (mode {mode:04o}, owner {uid})" in problem
            assert "chmod 600 /some/file" in problem or "chown 1000 /some/file" in problem


def test_a_file_that_we_made_is_no_mounted_secret() -> None:
    root_in_a_container = Reader(uid=0, contained=True)
    assert "read by others" in file_problem(seen(stat.S_IFREG, 0o644, 0, 0), root_in_a_container, mounted=False)
    assert not file_problem(seen(stat.S_IFREG, 0o644, 0, 0), root_in_a_container)


def test_a_file_that_compose_mounts_belongs_to_its_user_outside() -> None:
    """A bind mount that can't be written: the owner's number means nobody in here."""
    file = seen(stat.S_IFREG, 0o644, STRANGER, STRANGER, fixed=True)
    assert not file_problem(file, Reader(uid=US, contained=True))
    assert "another user" in file_problem(file, Reader(uid=US))
    writable = seen(stat.S_IFREG, 0o666, STRANGER, STRANGER, fixed=True)
    assert "another user" in file_problem(writable, Reader(uid=US, contained=True))
    directory = seen(stat.S_IFDIR, 0o755, STRANGER, STRANGER, fixed=True)
    assert not path_problem(directory, Reader(uid=US, contained=True))
    assert "another user" in path_problem(directory, Reader(uid=US))


@pytest.mark.parametrize("kind", [stat.S_IFDIR, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR])
def test_only_regular_files_are_read(kind: int) -> None:
    assert "isn't a regular file" in file_problem(seen(kind, 0o600, US, US), Reader(uid=US))


@pytest.mark.parametrize(
    ("kind", "mode", "uid", "gid", "expected"),
    [
        (stat.S_IFDIR, 0o755, US, US, ""),
        (stat.S_IFDIR, 0o755, 0, 0, ""),
        (stat.S_IFDIR, 0o1777, 0, 0, ""),  # /tmp, and where Kubernetes mounts a Secret
        (stat.S_IFDIR, 0o3777, 0, TEAM, ""),
        (stat.S_IFDIR, 0o777, 0, 0, "written by others"),
        (stat.S_IFDIR, 0o757, US, US, "written by others"),
        (stat.S_IFDIR, 0o775, US, TEAM, "written by others"),
        (stat.S_IFDIR, 0o775, 0, 0, ""),  # root's group
        (stat.S_IFDIR, 0o775, US, US, ""),  # a user's private group, which many systems give
        (stat.S_IFDIR, 0o755, STRANGER, STRANGER, "another user"),
        (stat.S_IFDIR, 0o1777, STRANGER, STRANGER, "another user"),
        (stat.S_IFLNK, 0o777, US, US, ""),
        (stat.S_IFLNK, 0o777, 0, 0, ""),  # Kubernetes' ..data
        (stat.S_IFLNK, 0o777, STRANGER, STRANGER, "another user"),
    ],
)
def test_which_ways_may_lead_to_a_secret(kind: int, mode: int, uid: int, gid: int, expected: str) -> None:
    problem = path_problem(seen(kind, mode, uid, gid), Reader(uid=US, group=lambda: US))
    assert expected in problem
    assert bool(problem) == bool(expected)


def test_a_key_file_of_ones_own_is_read(home: Path) -> None:
    assert ring(keys_in(home)).signing_key_id == "a"


@as_root
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o606])
def test_a_key_file_that_others_may_use_is_refused(home: Path, mode: int) -> None:
    path = keys_in(home, mode, STRANGER, STRANGER)
    answer = as_user(STRANGER, STRANGER, lambda: ring(path))
    assert answer.startswith(
        f"InvalidSettings: DISPATCHER__SIGNING_KEYS_FILE: {path} (mode {mode:04o}, owner {STRANGER})"
    )
    assert answer.endswith(f"chmod 600 {path}")


@as_root
def test_a_key_file_of_another_user_is_refused(home: Path) -> None:
    path = keys_in(home, 0o600, STRANGER)
    with pytest.raises(InvalidSettings, match=rf"{path} \(mode 0600, owner {STRANGER}\) .*chown 0 {path}"):
        ring(path)


def test_a_directory_on_the_way_that_others_may_write_is_refused(home: Path) -> None:
    below = home / "a" / "b"
    below.mkdir(parents=True)
    path = keys_in(below)
    (home / "a").chmod(0o777)
    with pytest.raises(InvalidSettings, match=rf"{home}/a \(mode 0777.*chmod go-w {home}/a"):
        ring(path)
    (home / "a").chmod(0o1777)
    assert ring(path)


@as_root
def test_a_link_that_another_user_planted_is_refused(home: Path) -> None:
    (home / "mine").mkdir()
    keys_in(home / "mine")
    home.chmod(0o1777)
    planted = home / "planted"
    planted.symlink_to("mine")
    os.chown(planted, STRANGER, STRANGER, follow_symlinks=False)
    with pytest.raises(InvalidSettings, match=rf"{planted} .*another user"):
        ring(planted / "keys.json")
    direct = home / "direct.json"
    direct.symlink_to(home / "mine" / "keys.json")
    os.chown(direct, STRANGER, STRANGER, follow_symlinks=False)
    with pytest.raises(InvalidSettings, match="another user"):
        ring(direct)
    os.chown(direct, 0, 0, follow_symlinks=False)
    assert ring(direct)


@as_root
def test_a_secret_as_kubernetes_mounts_it_is_read(home: Path) -> None:
    """``keys.json -> ..data/keys.json``, ``..data -> ..2026_11_29``, owned by root, read through fsGroup."""
    home.chmod(0o1777)
    version = home / "..2026_11_29"
    version.mkdir()
    version.chmod(0o755)
    keys_in(version, 0o440, 0, TEAM)
    (home / "..data").symlink_to(version.name)
    (home / "keys.json").symlink_to("..data/keys.json")
    assert as_user(STRANGER, TEAM, lambda: ring(home / "keys.json")) == "KeyRing(a)"
    assert "can't be read: Permission denied" in as_user(STRANGER, STRANGER, lambda: ring(home / "keys.json"))


def test_links_without_end_and_pipes_are_errors(home: Path) -> None:
    (home / "round").symlink_to("round")
    os.mkfifo(home / "pipe", 0o600)
    for name, problem in (("round", "can't be read"), ("pipe", "isn't a regular file"), ("none", "can't be read")):
        with pytest.raises(InvalidSettings, match=rf"DISPATCHER__SIGNING_KEYS_FILE.*{problem}"):
            ring(home / name)


def test_dots_in_a_path_lead_where_the_kernel_goes(home: Path) -> None:
    (home / "a").mkdir()
    (home / "open").mkdir()
    (home / "open").chmod(0o777)
    path = keys_in(home / "a")
    assert ring(home / "a" / ".." / "a" / "keys.json")
    (home / "link").symlink_to(home / "open")
    (home / "open" / "keys.json").write_text(KEYS)
    with pytest.raises(InvalidSettings, match="open"):
        ring(home / "link" / ".." / "open" / "keys.json")
    assert path.exists()


def test_a_file_without_end_is_not_read_into_memory(home: Path) -> None:
    path = home / "keys.json"
    path.touch(0o600)
    os.truncate(path, 2**40)
    with pytest.raises(InvalidSettings, match="larger than"):
        ring(path)


# -- the state directory


@pytest.mark.parametrize("mode", [0o777, 0o707, 0o1777])
def test_a_state_directory_that_others_may_write_is_not_used(home: Path, mode: int) -> None:
    places = LaptopPaths(home / "state")
    places.prepare()
    places.state.chmod(mode)
    settings = Settings.load(state_dir=places.state)
    for use in (places.prepare, lambda: laptop.down(settings), lambda: laptop.status(settings)):
        with pytest.raises(InvalidSettings, match=rf"mode {mode:04o}.*DISPATCHER__STATE_DIR"):
            use()


@pytest.mark.parametrize("name", ["data", "programs", "workers"])
def test_its_parts_are_looked_at_too(home: Path, name: str) -> None:
    places = LaptopPaths(home / "state")
    places.prepare()
    (places.state / name).chmod(0o777)
    with pytest.raises(InvalidSettings, match=f"state/{name} "):
        places.prepare()
    assert name in places.problem()


@as_root
def test_a_state_directory_that_another_user_planted_is_neither_used_nor_touched(home: Path) -> None:
    home.chmod(0o1777)
    theirs = home / "theirs"
    theirs.mkdir()
    theirs.chmod(0o777)
    os.chown(theirs, STRANGER, STRANGER)
    planted = home / "state"
    planted.symlink_to(theirs)
    os.chown(planted, STRANGER, STRANGER, follow_symlinks=False)
    for state in (theirs, planted, planted / "below"):
        settings = Settings.load(state_dir=state)
        for use in (laptop.join, laptop.up, laptop.down, laptop.status):
            with pytest.raises(InvalidSettings, match=r"another user.*DISPATCHER__STATE_DIR"):
                use(settings)
    assert list(theirs.iterdir()) == []


@as_root
def test_a_victim_s_process_is_not_ended_at_a_stranger_s_word(home: Path) -> None:
    """``down`` ends the processes that the state directory names."""
    places = LaptopPaths(home / "state")
    places.prepare()
    os.chown(places.state, STRANGER, STRANGER)
    with pytest.raises(InvalidSettings, match="another user"):
        laptop.down(Settings.load(state_dir=places.state), force=True)


def test_directories_are_made_closed_whatever_the_umask_is(home: Path) -> None:
    before = os.umask(0)
    try:
        LaptopPaths(home / "a" / "b").prepare()
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (home / "a", *home.glob("a/**/"))} == {0o700}


def test_one_that_others_may_only_read_is_closed(home: Path) -> None:
    places = LaptopPaths(home / "state")
    places.state.mkdir(mode=0o755)
    places.prepare()
    assert places.state.stat().st_mode & 0o777 == 0o700


@as_root
def test_a_runtime_directory_of_another_user_is_passed_over(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = home / "session"
    session.mkdir()
    session.chmod(0o777)
    os.chown(session, STRANGER, STRANGER)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(session))
    monkeypatch.setattr(tempfile, "tempdir", str(home))
    socket = LaptopPaths(home / "state").new_socket()
    assert socket.parent.parent == home
    assert list(session.iterdir()) == []


# -- files for the moment


def test_a_worker_refuses_a_place_for_notes_that_others_may_change(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(home))
    with pytest.raises(InvalidSettings, match=rf"{home} \(mode 0777.*TMPDIR"):
        InterruptChannel()
    assert list(home.iterdir()) == []
    home.chmod(0o1777)
    notes = InterruptChannel()
    (made,) = home.iterdir()
    assert made.stat().st_mode & 0o777 == 0o700
    notes.close()


def test_a_temporary_directory_can_be_made_twice(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(home))
    assert private_files.temporary_directory("x-") != private_files.temporary_directory("x-")


# -- what `doctor` says of it


def findings(monkeypatch: pytest.MonkeyPatch, **variables: str) -> dict[str, tuple[Level, str]]:
    for name, value in {"DISPATCHER__URL": "", **variables}.items():
        monkeypatch.delenv(name, raising=False)
        if value:
            monkeypatch.setenv(name, value)
    return {finding.subject: (finding.level, f"{finding.text} {finding.remedy}") for finding in examine()}


def test_the_doctor_looks_at_the_key_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = keys_in(home)
    variables = {"DISPATCHER__URL": "redis://127.0.0.1:1", "DISPATCHER__SIGNING_KEYS_FILE": str(path)}
    assert findings(monkeypatch, **variables)["keys"] == (
        Level.OK,
        f"KeyRing(a) signs with a; no other user can read or change {path} ",
    )
    path.chmod(0o666)
    level, text = findings(monkeypatch, **variables)["keys"]
    assert level is Level.PROBLEM
    assert f"chmod 600 {path}" in text


def test_the_doctor_looks_at_the_state_directory(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = LaptopPaths(home / "state")
    places.prepare()
    places.keys.write_text(KEYS)
    places.keys.chmod(0o666)
    variables = {"DISPATCHER__STATE_DIR": str(places.state)}
    level, text = findings(monkeypatch, **variables)["keys"]
    assert level is Level.PROBLEM
    assert f"chmod 600 {places.keys}" in text
    places.keys.chmod(0o600)
    assert findings(monkeypatch, **variables)["keys"][0] is Level.OK
    places.state.chmod(0o777)
    level, text = findings(monkeypatch, **variables)["server"]
    assert level is Level.PROBLEM
    assert "mode 0777" in text
