"""A bucket of S3: writes and reads objects, and tells errors apart. The only user of boto3 here.

Credentials, region and endpoint are those that boto3 finds, and are never passed on. See
https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from dispatcher.errors import InvalidInput, MissingExtra, ServerUnavailable
from dispatcher.support.escaping import escaped

#: Name of the metadata of an object that has its SHA-256.
_DIGEST = "sha256"

#: Most bytes of an object that is read: no code is longer.
_MAX_BYTES = 2**30

_CONNECT_TIMEOUT = 5.0  # seconds
_READ_TIMEOUT = 30.0  # seconds between two parts of an answer
_ATTEMPTS = 4  # of a request; boto3 pauses between them for up to a second, two and four

_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or give the machine or pod a role"

#: What error codes of S3 mean.
_MEANINGS: Mapping[str, str] = {
    "NoSuchBucket": "there is no such bucket: create it, or correct the name, the region or the endpoint",
    "InvalidBucketName": "no bucket can have this name",
    "AccessDenied": "access is denied: the credentials need {action}",
    "403": "access is denied: the credentials need {action}",
    "AllAccessDisabled": "the bucket's owner has disabled access",
    "InvalidAccessKeyId": f"S3 doesn't know the access key: {_CREDENTIALS}",
    "SignatureDoesNotMatch": f"S3 refuses the secret key: {_CREDENTIALS}",
    "ExpiredToken": "the session's credentials have expired: renew them",
    "InvalidToken": "the session token isn't valid: renew the credentials",
    "RequestTimeTooSkewed": "the clock of this machine is wrong by more than 15 minutes",
    "PermanentRedirect": "the bucket is in another region: give its region_name",
    "AuthorizationHeaderMalformed": "the bucket is in another region: give its region_name",
    "IllegalLocationConstraintException": "the bucket is in another region: give its region_name",
}

#: Codes after which a later try may succeed, beside each answer with status 5xx.
_AWAY = frozenset({"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "RequestLimitExceeded"})


class Bucket:
    """A bucket.

    Args:
        name: its name, or the ARN of an access point.
        region_name: its region; None: as boto3 finds it.
        endpoint_url: the service's address; None: as boto3 finds it.

    Raises:
        MissingExtra: boto3 isn't installed.
        InvalidInput: region, endpoint or profile can't be used.
    """

    def __init__(self, name: str, *, region_name: str | None, endpoint_url: str | None) -> None:
        self._name = name
        self._where = f"bucket {name}" + (f" at {endpoint_url}" if endpoint_url else "")
        with self._translated("s3:GetObject"):
            self._client = _client(os.getpid(), region_name, endpoint_url)

    def put(self, key: str, data: bytes, digest: str) -> None:
        """Write an object, unless it is there with this digest.

        Raises:
            InvalidInput: it can't be written; says why.
            ServerUnavailable: no answer, or the service asks to come back later.
        """
        if self._digest_of(key) == digest:
            return
        with self._translated("s3:PutObject"):
            self._client.put_object(
                Bucket=self._name,
                Key=key,
                Body=data,
                ContentType="application/octet-stream",
                Metadata={_DIGEST: digest},
            )

    def get(self, key: str) -> bytes:
        """Return an object's bytes.

        Raises:
            KeyError: there is no such object.
            InvalidInput: it can't be read; says why.
            ServerUnavailable: as :meth:`put`.
        """
        with self._translated("s3:GetObject"):
            answer = self._client.get_object(Bucket=self._name, Key=key)
            with answer["Body"] as body:
                data: bytes = body.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise InvalidInput(f"S3Storage: object {key} in {self._where} has more than {_MAX_BYTES:,} bytes: no flow")
        return data

    def _digest_of(self, key: str) -> str | None:
        """Return the digest in an object's metadata; None if there is none, or it can't be read."""
        try:
            with self._translated("s3:GetObject"):
                answer = self._client.head_object(Bucket=self._name, Key=key)
        except (KeyError, InvalidInput):
            return None  # writing it says what is wrong, if anything is
        digest: str | None = answer.get("Metadata", {}).get(_DIGEST)
        return digest

    @contextmanager
    def _translated(self, action: str) -> Iterator[None]:
        """Raise errors of boto3 as those of this module.

        Args:
            action: the permission that the block needs.
        """
        try:
            from botocore import exceptions
        except ImportError as error:
            raise MissingExtra("S3Storage needs boto3: pip install 'flow-dispatcher[s3]'") from error
        try:
            yield
        except exceptions.ClientError as error:
            raise self._refusal(error, action) from error
        except (exceptions.HTTPClientError, exceptions.ConnectionError, exceptions.CredentialRetrievalError) as error:
            raise ServerUnavailable(f"S3Storage: {self._where} doesn't answer: {escaped(str(error))}") from error
        except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
            raise InvalidInput(f"S3Storage: {self._where}: no credentials of AWS: {_CREDENTIALS}") from error
        except (exceptions.BotoCoreError, ValueError) as error:
            raise InvalidInput(f"S3Storage: {self._where}: {escaped(str(error))}") from error

    def _refusal(self, error: Any, action: str) -> Exception:
        """Return the error for an answer of S3 that isn't success."""
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in {"NoSuchKey", "404"}:
            return KeyError(code)
        if code in _AWAY or status >= 500:
            return ServerUnavailable(f"S3Storage: {self._where}: {escaped(str(error))}")
        meaning = _MEANINGS.get(code)
        text = meaning.format(action=action) if meaning else escaped(str(error))
        return InvalidInput(f"S3Storage: {self._where}: {text}")


@lru_cache(maxsize=16)
def _client(_process: int, region_name: str | None, endpoint_url: str | None) -> Any:
    """Return a client of a process: after a fork, connections of the parent must not be used."""
    from boto3.session import Session
    from botocore.config import Config

    config = Config(
        connect_timeout=_CONNECT_TIMEOUT,
        read_timeout=_READ_TIMEOUT,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
    )
    return Session().client("s3", region_name=region_name, endpoint_url=endpoint_url, config=config)
