"""The contract of a storage, for a bucket on a server of S3's protocol."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3.session
import pytest

from dispatcher import S3Storage
from dispatcher.storage.code_cache import code_cache
from dispatcher.testing import StorageService
from tests import ministack
from tests.conformance.test_storage import PickledStorageContract


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server of S3's protocol, which has a bucket ``flows``."""
    with ministack.serving(tmp_path_factory.mktemp("s3")) as address:
        client(address).create_bucket(Bucket="flows")
        yield address


def client(address: str) -> Any:
    return boto3.session.Session("test", "test", region_name="us-east-1").client("s3", endpoint_url=address)


CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


class TestS3Storage(PickledStorageContract):
    @pytest.fixture
    def service(self, s3: str, monkeypatch: pytest.MonkeyPatch) -> StorageService:
        code_cache.clear()
        for name, value in CREDENTIALS.items():
            monkeypatch.setenv(name, value)

        def damage(location: str) -> None:
            key = location.rpartition("#")[0]
            data = client(s3).get_object(Bucket="flows", Key=key)["Body"].read()
            client(s3).put_object(Bucket="flows", Key=key, Body=data[:-1] + b"x")

        storage = S3Storage("flows", endpoint_url=s3)
        return StorageService(storage=storage, damage=damage, runs=True, variables=CREDENTIALS)
