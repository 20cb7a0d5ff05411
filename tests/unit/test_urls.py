"""URLs are read, or are an ``InvalidSettings`` that repeats no part of a password, whatever cut it."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from backends.kubernetes.settings import KubernetesSettings
from dispatcher.errors import InvalidSettings
from dispatcher.settings import Settings, WorkerSettings
from dispatcher.support.urls import Address, as_user, parse, redacted, shown

CORE = "sEcReTw0rD"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", {"hosts": (("h", 6379),)}),
        ("REDIS://h:1/2", {"hosts": (("h", 1),), "db": 2}),
        (" redis://h:1/2\n", {"hosts": (("h", 1),), "db": 2}),
        ("redis:///3", {"hosts": (("localhost", 6379),), "db": 3}),
        ("redis://h?db=4", {"db": 4}),
        ("redis://u:p%40%2F%20w@h", {"username": "u", "password": "p@/ w"}),
        ("redis://u:p@w@h", {"username": "u", "password": "p@w"}),
        ("redis://:p:w@h", {"username": None, "password": "p:w"}),
        ("redis://h?username=u&password=p%26", {"username": "u", "password": "p&"}),
        ("redis://[::1]:7", {"hosts": (("::1", 7),)}),
        ("redis://[fe80::1%25eth0]", {"hosts": (("fe80::1%eth0", 6379),)}),
        ("rediss://h?ssl_ca_certs=%2Fx", {"options": {"ssl_ca_certs": "/x"}}),
        ("unix:///a b/s@t?db=2", {"path": "/a b/s@t", "db": 2}),
        ("unix://u:p@/s", {"path": "/s", "username": "u", "password": "p"}),
        ("sentinel://u:p@a,[::2]:7/main/4", {"hosts": (("a", 26379), ("::2", 7)), "service": "main", "db": 4}),
    ],
)
def test_the_parts_of_a_url(url: str, expected: dict[str, Any]) -> None:
    address = parse(url)
    assert {name: getattr(address, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("amqp://h", "unknown scheme 'amqp'; use redis://"),
        ("h:6379", "use redis://"),
        ("", "use redis://"),
        ("redis:h", "use redis://"),
        ("redis://h:port", "invalid host or port"),
        ("redis://h:70000", "invalid host or port"),
        ("redis://h:0", "invalid host or port"),
        ("redis://[::1", "invalid host or port"),
        ("redis://::1", "invalid host or port"),
        ("redis://[g]", "invalid host or port"),
        ("redis://h/x", "the database must be a number, as in redis://host:6379/0"),
        ("redis://h/-1", "the database must be a number"),
        ("redis://h/1/2", "nothing may follow the database"),
        ("redis://h/" + "9" * 5000, "must be a number"),
        ("redis://a,b", "takes one host"),
        ("redis://h?what=1", "after [?] only"),
        ("redis://h#x", "# isn't allowed"),
        ("redis://h/%zz", "two hexadecimal digits"),
        ("redis://%ff@h", "aren't UTF-8"),
        ("redis://%00@h", "control character"),
        ("redis://a\x1bb@h", "control character"),
        ("redis://a\udcffb@h", "control character, or bytes"),
        ("unix://s", "absolute path"),
        ("sentinel://h", "needs the service's name"),
    ],
)
def test_what_is_none_names_the_remedy(url: str, problem: str) -> None:
    with pytest.raises(InvalidSettings, match=f"URL: .*{problem}"):
        parse(url)
    assert redacted(url) == "…"


@pytest.mark.parametrize(
    "form",
    [
        "redis://{}:{}@h:1/0",
        "unix://{}:{}@/s",
        "sentinel://{}:{}@h/main",
        "redis://h?a={}{}",
        "redis://h:1/x{}{}",
        "unix:///s?db={}{}",
    ],
)
@pytest.mark.parametrize(
    "cut", [*"/?#@:;,%[]\\&=+ \t\n\x00\x1b\x9b\u202e", "%zz", "%ff", "\udcff", "//", "@/", "1/", ":1?"]
)
def test_no_character_of_a_password_lets_a_part_of_it_out(form: str, cut: str) -> None:
    for password in (f"{CORE}{cut}{CORE}", f"{cut}{CORE}", f"{CORE}{cut}", f"1{cut}{CORE}", f"{CORE}{cut}1"):
        never_told(form.format("user", password))


@given(st.text(max_size=40), st.text(max_size=20), st.sampled_from(["redis", "rediss", "unix", "sentinel", "http", ""]))
def test_any_text_is_read_or_refused(before: str, after: str, scheme: str) -> None:
    never_told(f"{scheme}://user:{before}{CORE}{after}@host:6379/main/0")
    never_told(f"{scheme}://:{before}{CORE}{after}@host:6379/main/0")


@given(st.text(alphabet="redis:/unx@[]%?#&=,;.0123456789 a\x00\udcff", max_size=60))
def test_nothing_but_invalid_settings_is_raised(text: str) -> None:
    for url in (text, f"redis://{text}", f"unix://{text}", f"sentinel://{text}"):
        with contextlib.suppress(InvalidSettings):
            assert isinstance(parse(url), Address)


@pytest.mark.parametrize(
    "url",
    [
        "redis://h:1/2",
        "redis://:secret@h:1/2",
        "rediss://u:p%40@h/0?ssl_ca_certs=/ca.pem",
        "redis://h/0?username=u&password=p",
        "sentinel://u:p@a:1,b:2/main/3?sentinel_password=x",
        "unix:///run/s?db=1",
        "unix://u:p@/run/s?db=1",
    ],
)
def test_another_user_takes_the_place_of_the_one_in_a_url(url: str) -> None:
    before, after = parse(url), parse(as_user(url, "prod:1", "p/@:?#%"))
    assert after == replace(before, username="prod:1", password="p/@:?#%")


def never_told(url: str) -> None:
    """Read it, or refuse it; nothing that is said or shown holds the password's core."""
    texts = [redacted(url)]
    try:
        texts += [repr(parse(url)), shown(url)]
    except InvalidSettings as error:
        texts += [str(error), repr(error.__cause__)]
    assert CORE not in " ".join(map(str, texts)), url


@pytest.mark.parametrize(
    ("made", "field"), [(Settings, "embedded"), (WorkerSettings, "drain"), (KubernetesSettings, "ttl")]
)
def test_pydantic_shows_no_input(made: type[BaseModel], field: str) -> None:
    with pytest.raises(ValidationError) as raised:
        made.model_validate({field: CORE})
    assert CORE not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, f"{{{CORE}") for name in ("URL", "BROKER_URL", "SIGNING_KEYS", "WORKER", "KUBERNETES__CLUSTERS")],
        *[(name, f"redis://u:{CORE}@host/0") for name in ("WORKER__BACKENDS", "WORKER__DRAIN", "WORKER__SCOPE")],
    ],
)
def test_what_may_be_secret_in_a_variable_is_not_shown(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"DISPATCHER__{name}", value)
    if name.endswith("URL"):
        assert CORE not in repr(Settings.load())
        return
    with pytest.raises(InvalidSettings, match=f"DISPATCHER__{name}: ") as raised:
        Settings.load()
    assert CORE not in str(raised.value)
