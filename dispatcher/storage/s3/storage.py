"""Flows as objects in a bucket of S3, or of a service that speaks its protocol."""

from __future__ import annotations

import hashlib
import re
from typing import Any, ClassVar

from dispatcher.errors import InvalidInput, SealBroken
from dispatcher.flows.flow import Flow, as_flow, unpack_flow
from dispatcher.storage import child_process
from dispatcher.storage.answer import Runner
from dispatcher.storage.base import Storage
from dispatcher.storage.code_cache import code_cache
from dispatcher.storage.s3.bucket import Bucket
from dispatcher.support.escaping import shown

#: Bucket names, older ones with capital letters too, and ARNs of access points, as botocore accepts them.
_BUCKET = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}|arn:aws[a-z-]*:s3[a-z-]*:[a-z0-9-]*:[0-9]{12}:[A-Za-z0-9:/_.-]+"
)
_MAX_KEY = 1024  # bytes, in UTF-8
_LOCATION = re.compile(r"(?P<key>.+)#(?P<digest>[0-9a-f]{64})", re.DOTALL)


class S3Storage(Storage):
    """Keeps each flow in an object: its code, and behind it the files of its project.

    A location is the object's key and the full SHA-256 of its bytes, ``etl/1f0c….flow#1f0c…``. An object that was
    changed since is never opened. Needs the extra ``s3`` where flows are added and where they run.

    Credentials are those that boto3 finds in the process, and no part of the storage: workers and containers use their
    own. Objects are never deleted.

    Args:
        bucket: the bucket's name, or the ARN of an access point.
        key: the object's key, for a storage of one flow. A later version of the flow overwrites it. By default
            ``<flow>/<digest>.flow``, so that each version is an object of its own.
        region_name: the bucket's region; by default as boto3 finds it (``AWS_REGION``, a profile).
        endpoint_url: the address of another service than AWS; by default as boto3 finds it
            (``AWS_ENDPOINT_URL_S3``). Programs, workers and containers must all reach it there.

    Raises:
        InvalidInput: an argument can't be right; names it.
    """

    in_containers: ClassVar[bool] = True
    added: ClassVar[tuple[str, ...]] = ("bucket", "key", "region_name", "endpoint_url")

    def __init__(
        self,
        bucket: str,
        key: str | None = None,
        region_name: str | None = None,
        endpoint_url: str | None = None,
    ) -> None:
        super().__init__()
        _check_bucket(bucket)
        _check_key(key)
        _check_text("region_name", region_name)
        _check_text("endpoint_url", endpoint_url)
        if endpoint_url is not None and not re.fullmatch(r"https?://[^/@\s]+(/[^@\s]*)?", endpoint_url):
            raise InvalidInput(
                "S3Storage.endpoint_url: must be an address such as https://s3.example.org, without credentials"
            )
        self.bucket = bucket
        self.key = key
        self.region_name = region_name
        self.endpoint_url = endpoint_url

    def add_flow(self, flow: Flow[..., Any]) -> str:
        from dispatcher.flows.packing import pack_flow

        name = as_flow(flow).name
        if self.key is not None and (others := [other for other in self.flows if other != name]):
            raise InvalidInput(
                f"S3Storage.key: {self.key} is the object of flow {others[0]!r}, and can't be that of {name!r} too: "
                "leave key out, or make a storage for each"
            )
        data = pack_flow(flow, bundler=self.bundler)
        digest = hashlib.sha256(data).hexdigest()
        key = self.key or f"{_slug(name)}/{digest[:32]}.flow"
        self._bucket().put(key, data, digest)
        self.flows[name] = f"{key}#{digest}"
        return self.flows[name]

    def get_flow(self, location: str) -> Flow[..., Any]:
        return unpack_flow(self._read(location), subject=f"object {location.rpartition('#')[0]}")

    def kept_bundle(self, location: str) -> bytes | None:
        from dispatcher.serialization import pickles

        return pickles.bundle_in(self._read(location))

    def get_env_runner(self, location: str) -> Runner:
        return child_process.runner(self, location)

    def _read(self, location: str) -> bytes:
        """Read the object at a location, and check its digest."""
        match = _LOCATION.fullmatch(location)
        if match is None or len(match["key"].encode(errors="replace")) > _MAX_KEY:
            raise InvalidInput(f"S3Storage: a location is '<key>#<SHA-256>' as add_flow gave it, got {shown(location)}")
        key, digest = match["key"], match["digest"]
        data = code_cache.get(digest)
        if data is not None:
            return data
        try:
            data = self._bucket().get(key)
        except KeyError:
            raise InvalidInput(
                f"S3Storage: there is no object {key} in bucket {self.bucket} any more: submit the flow again"
            ) from None
        if hashlib.sha256(data).hexdigest() != digest:
            raise SealBroken(
                f"S3Storage: object {key} in bucket {self.bucket} was changed since it was submitted (its SHA-256 "
                f"isn't {digest}), and isn't opened: submit the flow again"
            )
        code_cache.put(digest, data)
        return data

    def _bucket(self) -> Bucket:
        return Bucket(self.bucket, region_name=self.region_name, endpoint_url=self.endpoint_url)


def _check_bucket(bucket: object) -> None:
    if not isinstance(bucket, str) or not _BUCKET.fullmatch(bucket):
        hint = ": the name alone, without s3:// and key" if isinstance(bucket, str) and "/" in bucket else ""
        raise InvalidInput(
            f"S3Storage.bucket: must be a bucket's name or the ARN of an access point, got {shown(bucket)}{hint}"
        )


def _check_key(key: object) -> None:
    _check_text("key", key)
    if not isinstance(key, str):
        return
    if key.endswith("/"):
        raise InvalidInput(f"S3Storage.key: must be the key of one object, got {shown(key)}, which is a folder's")
    if len(key.encode(errors="replace")) > _MAX_KEY:
        raise InvalidInput(
            f"S3Storage.key: must have at most {_MAX_KEY:,} bytes, got {len(key.encode(errors='replace')):,}"
        )


def _check_text(name: str, value: object) -> None:
    if value is not None and (not isinstance(value, str) or not value or not value.isprintable()):
        raise InvalidInput(f"S3Storage.{name}: must be a text, got {shown(value)}")


def _slug(name: str) -> str:
    """Return a flow's name as a part of a key, of characters that need no escaping in S3."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name)[:100].strip(".") or "flow"
