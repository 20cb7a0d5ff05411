"""Files that may hold secrets, by their names and by what they hold. They stay out of bundles.

The names are those that gitleaks, detect-secrets and GitHub's templates of ``.gitignore`` look for, as far as a file of
such a name is hardly anything else. Used by :mod:`.exclusions`.
"""

from __future__ import annotations

import fnmatch
import importlib.machinery
import re

_KEY, _PASSWORDS, _TOKEN = "may hold a private key", "may hold passwords", "may hold an access token"

_CODE = (*importlib.machinery.SOURCE_SUFFIXES, *importlib.machinery.EXTENSION_SUFFIXES, ".pyi")

#: Names in lower case. Source files are code whatever their names are.
_NAMES = {
    # keys and stores of keys
    "*.pem": _KEY,
    "*.key": _KEY,
    "*.p8": _KEY,
    "*.p12": _KEY,
    "*.pfx": _KEY,
    "*.pkcs12": _KEY,
    "*.jks": _KEY,
    "*.jceks": _KEY,
    "*.bks": _KEY,
    "*.keystore": _KEY,
    "*.keytab": _KEY,
    "*.ppk": _KEY,
    "*.gpg": _KEY,
    "*.pgp": _KEY,
    "*.ovpn": _KEY,
    "id_*": _KEY,
    "*service-account*.json": _KEY,
    "*service_account*.json": _KEY,
    "*serviceaccount*.json": _KEY,
    "*-adminsdk-*.json": _KEY,
    # stores of passwords
    "*.kdb": _PASSWORDS,
    "*.kdbx": _PASSWORDS,
    "*.keychain": _PASSWORDS,
    "*.keychain-db": _PASSWORDS,
    "*.kwallet": _PASSWORDS,
    "*.agilekeychain": _PASSWORDS,
    "*.opvault": _PASSWORDS,
    "*.psafe3": _PASSWORDS,
    "*passwd": _PASSWORDS,
    "*vault_pass*": _PASSWORDS,
    "*vault-pass*": _PASSWORDS,
    # settings of programs that have passwords in them
    "*.env": _PASSWORDS,
    "*.env.*": _PASSWORDS,
    ".envrc": _PASSWORDS,
    "dispatcher.toml": _PASSWORDS,
    "?netrc": _PASSWORDS,
    "*.netrc": _PASSWORDS,
    "?pgpass": _PASSWORDS,
    "pgpass.conf": _PASSWORDS,
    "?my.cnf": _PASSWORDS,
    ".npmrc": _TOKEN,
    ".yarnrc*": _TOKEN,
    "?pypirc": _TOKEN,
    ".dockercfg": _TOKEN,
    ".git-credentials": _PASSWORDS,
    ".s3cfg": _PASSWORDS,
    ".boto": _PASSWORDS,
    ".terraformrc": _TOKEN,
    ".vault-token": _TOKEN,
    "rclone.conf": _PASSWORDS,
    "kubeconfig*": _PASSWORDS,
    "*.kubeconfig": _PASSWORDS,
    "*.tfstate": _PASSWORDS,
    "*.tfstate.*": _PASSWORDS,
    "*.tfvars": _PASSWORDS,
    "*.tfvars.json": _PASSWORDS,
    "redis.conf": "a server's settings, which may hold passwords",
    "valkey.conf": "a server's settings, which may hold passwords",
    "users.acl": "a server's settings, which may hold passwords",
    # what services hand out
    "*credentials*.json": _PASSWORDS,
    "*accesskeys.csv": _PASSWORDS,
    "*.secret": _PASSWORDS,
    "*.secrets": _PASSWORDS,
    "*client_secret*.json": _PASSWORDS,
    "*client-secret*.json": _PASSWORDS,
    "*.token": _TOKEN,
    "*access_token*.json": _TOKEN,
}

#: Names of files that are told only with endings of text and tables: ``password.html`` may be a page.
_STEMS = {"password": _PASSWORDS, "passwords": _PASSWORDS, "credentials": _PASSWORDS, "secrets": _PASSWORDS}
_ENDINGS = (
    "", ".txt", ".csv", ".json", ".yml", ".yaml", ".toml", ".ini", ".cfg", ".conf", ".properties", ".xml", ".xlsx",
)  # fmt: skip
_NAMES |= {f"{stem}{ending}": reason for stem, reason in _STEMS.items() for ending in _ENDINGS}
_NAMES |= {f"token{ending}": _TOKEN for ending in ("", ".txt", ".json", ".pickle")}  # tokens.txt may be a vocabulary

_ANY_NAME = re.compile("|".join(map(fnmatch.translate, _NAMES)))

#: Endings of copies: ``server.key.bak`` holds what ``server.key`` held.
_COPY = re.compile(r"(\.(bak|backup|old|orig|save|copy|swp|tmp)|~)$")

#: A PEM or OpenPGP private key: its first line, then its content, also as text of JSON or of a program.
_PRIVATE_KEY = re.compile(
    rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----(?:(?!-----).){0,400}?[A-Za-z0-9+/]{40}", re.DOTALL
)

#: The key of a service account, which isn't always PEM.
_KEY_FIELD = re.compile(rb'"private_key"\s*:\s*"[^"]{20,}"')

_PUTTY = b"PuTTY-User-Key-File-"
_AGE = b"AGE-SECRET-KEY-1"


def by_name(name: str) -> str | None:
    """Return why a file may hold a secret by its name, or None."""
    folded = name.lower()
    if folded.endswith(_CODE):  # token.py and id_numbers.py are code
        return None
    original = _COPY.sub("", folded)
    if not _ANY_NAME.match(original):
        return None
    return next(reason for pattern, reason in _NAMES.items() if fnmatch.fnmatchcase(original, pattern))


def by_content(data: bytes) -> str | None:
    """Return which secret a file holds, or None. Code that only names the first line of a key holds none."""
    if b"PRIVATE KEY" in data and _PRIVATE_KEY.search(data):
        return "holds a private key"
    if b'"private_key"' in data and _KEY_FIELD.search(data):
        return "holds a private key"
    if data.startswith(_PUTTY) or _AGE in data:
        return "holds a private key"
    return None
