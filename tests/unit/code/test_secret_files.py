"""Files that may hold secrets stay out by their names and by what they hold, unless their own names let them in."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from dispatcher.code.archive import describe
from dispatcher.code.bundles import Bundle, Bundler
from dispatcher.code.patterns import Patterns
from dispatcher.code.secret_files import by_content, by_name
from dispatcher.code.selection import select
from tests.unit.code.projects import on_path, write

BODY = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj" * 3
PEM = f"-----BEGIN PRIVATE KEY-----\n{BODY}\n-----END PRIVATE KEY-----\n"
ENCRYPTED = (
    f"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,7F\n\n{BODY}\n"
    "-----END RSA PRIVATE KEY-----\n"
)
PGP = f"-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: GnuPG v2\n\n{BODY}\n-----END PGP PRIVATE KEY BLOCK-----\n"

SECRET_NAMES = [
    "client_secret.json", "client_secret_12.apps.googleusercontent.com.json", "token.json", "credentials.json",
    "gcp-credentials.json", "_netrc", ".netrc", "AuthKey.p8", "store.p12", "store.pfx", "store.jks", "mail.gpg",
    "office.ovpn", "mine.kdbx", "passwords.txt", "server.key.bak", "server.pem~", "id_rsa.old", "app.env.local",
    "app.env", ".pgpass", ".npmrc", ".pypirc", "my-service-account-1.json", "x-firebase-adminsdk-1.json", "prod.tfvars",
    "terraform.tfstate.backup", "kubeconfig.yaml", "SECRETS.YAML", "krb5.keytab", "htpasswd", "rootAccessKeys.csv",
]  # fmt: skip

OTHER_NAMES = [
    "token.py", "secrets.py", "credentials.py", "id_numbers.py", "settings.env.py", "tokens.txt", "tokenizer.json",
    "password.html", "secrets.cpython-311-x86_64-linux-gnu.so", "keys.csv", "environment.yaml", "passwords_test.csv",
    "data.csv", "notes.md", "secret.html", "monkey", "client.json",
]  # fmt: skip


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_names_of_secrets(name: str) -> None:
    assert str(by_name(name)).startswith("may hold"), name


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_names_of_no_secrets(name: str) -> None:
    assert by_name(name) is None


@pytest.mark.parametrize(
    "text",
    [
        PEM, ENCRYPTED, PGP, f"x = '''{PEM}'''", json.dumps({"key": PEM}), f"# notes\n\n{PEM}",
        PEM.replace(" PRIVATE", " OPENSSH PRIVATE"), '{"private_key": "0123456789abcdef01234567"}',
        "PuTTY-User-Key-File-3: ssh-ed25519\n", "# created\nAGE-SECRET-KEY-1QQPZRY9\n",
    ],
)  # fmt: skip
def test_contents_of_secrets(text: str) -> None:
    assert by_content(text.encode()) == "holds a private key"


@pytest.mark.parametrize(
    "text",
    [
        "MARK = '-----BEGIN PRIVATE KEY-----'\ndef is_key(text): return text.startswith(MARK)\n",
        f"-----BEGIN CERTIFICATE-----\n{BODY}\n-----END CERTIFICATE-----\n",
        f"-----BEGIN PUBLIC KEY-----\n{BODY}\n-----END PUBLIC KEY-----\n",
        f"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n{BODY}",
        '{"private_key": {"type": "string"}}', '{"private_key": ""}', "",
    ],
)  # fmt: skip
def test_contents_of_no_secrets(text: str) -> None:
    assert by_content(text.encode()) is None


def made(directory: Path, files: dict[str, str], patterns: Patterns, modules: tuple[str, ...] = ("pkg",)) -> Bundle:
    with on_path(write(directory, {"pyproject.toml": "", "pkg/__init__.py": "", **files})):
        bundle = Bundler(python="3.11", limit=10**6).bundle(modules, patterns)
    assert bundle is not None
    return bundle


def names(bundle: Bundle) -> set[str]:
    return {Path(file.path).name for file in bundle.selection.files}


@pytest.mark.parametrize(
    ("include", "packed"),
    [
        ((), set()),
        (("*",), set()),
        (("pkg",), set()),
        (("pkg/*",), set()),
        (("*.pem", "*.t?t"), set()),
        (("server.pem",), {"server.pem"}),
        (("pkg/server.pem", "./pkg/.netrc"), {"server.pem", ".netrc"}),
        (("notes.txt",), {"notes.txt"}),
        (("pkg/keys.py",), {"keys.py"}),
    ],
)
def test_only_its_own_name_lets_a_secret_in(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, include: tuple[str, ...], packed: set[str]
) -> None:
    caplog.set_level(logging.WARNING)
    files = {"pkg/server.pem": "", "pkg/.netrc": "", "pkg/notes.txt": PEM, "pkg/keys.py": f"KEY = '''{PEM}'''"}
    bundle = made(tmp_path, files, Patterns(include=include))
    secrets = {Path(name).name for name in files}
    assert names(bundle) & secrets == packed
    left_out = {Path(each.path).name: each.reason for each in bundle.selection.left_out}
    assert left_out.keys() & secrets == secrets - packed
    for name in {"notes.txt", "keys.py"} - packed:
        assert left_out[name] == "holds a private key"
        assert f"{name}, which holds a private key; include lets it in by its name" in caplog.text
    assert set(describe(bundle.data).digests) & {f"0/{name}" for name in files} == {f"0/pkg/{name}" for name in packed}


def test_an_edit_of_what_was_left_out_for_its_content_is_seen(tmp_path: Path) -> None:
    bundle = made(tmp_path, {"pkg/notes.txt": PEM}, Patterns())
    assert bundle.selection.is_current()
    (tmp_path / "pkg/notes.txt").write_text("now harmless")
    assert not bundle.selection.is_current()


def test_our_own_keys_stay_out_whatever_names_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = {"pkg/mine.json": '{"k0123abcd": "0123456789abcdef0"}'}
    bundle = made(tmp_path, files, Patterns(include=("pkg/mine.json",)))
    assert "mine.json" not in names(bundle)
    assert "which holds signing keys" in caplog.text
    assert "lets it in" not in caplog.text


def test_modules_with_names_of_secrets_travel(tmp_path: Path) -> None:
    with on_path(
        write(tmp_path, {"etl.py": "import token, secrets, credentials", "credentials.py": "", "token.json": ""})
    ):
        selection = select(["etl", "credentials"])
    assert selection is not None
    assert {Path(file.path).name for file in selection.files} == {"etl.py", "credentials.py"}
