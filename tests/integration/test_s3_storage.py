"""Flows in a bucket: through a real worker, and each way in which S3 says no."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3.session
import pytest

from dispatcher import Dispatcher, InvalidInput, S3Storage, SealBroken, ServerUnavailable, flow
from dispatcher.storage.code_cache import code_cache
from tests import ministack
from tests.conftest import free_port
from tests.integration.workers import Worker

pytestmark = pytest.mark.integration

CANARY = "c4n4ry-of-a-secret-key"


@flow
def double(number: int) -> int:
    return 2 * number


@flow
def triple(number: int) -> int:
    return 3 * number


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with ministack.serving(tmp_path_factory.mktemp("s3")) as address:
        aws(address).create_bucket(Bucket="flows")
        yield address


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server that checks credentials and policies."""
    with ministack.serving(tmp_path_factory.mktemp("guarded"), AUTH="true") as address:
        aws(address).create_bucket(Bucket="flows")
        yield address


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    code_cache.clear()
    set_credentials(monkeypatch, ministack.ACCESS_KEY, CANARY)


def set_credentials(monkeypatch: pytest.MonkeyPatch, access_key: str, secret_key: str) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret_key)


def aws(address: str, service: str = "s3") -> Any:
    session = boto3.session.Session(ministack.ACCESS_KEY, ministack.SECRET_KEY, region_name="us-east-1")
    return session.client(service, endpoint_url=address)


def test_a_worker_runs_what_is_in_the_bucket(s3: str, client: Dispatcher, start_worker: Callable[..., Worker]) -> None:
    start_worker()
    storage = S3Storage("flows", endpoint_url=s3)
    run = client.submit(double, {"number": 4}, storage=storage)
    assert run.result(timeout=60) == 8
    record, _ = client.records.runs.get(run.id)
    assert CANARY not in json.dumps([record.spec.storage, storage.to_json(), repr(storage), record.spec.location])
    keys = [item["Key"] for item in aws(s3).list_objects_v2(Bucket="flows")["Contents"]]
    assert record.spec.location.partition("#")[0] in keys


def test_a_flow_is_sent_once(s3: str) -> None:
    def written() -> Any:
        (item,) = aws(s3).list_objects_v2(Bucket="flows", Prefix="triple/")["Contents"]
        return aws(s3).head_object(Bucket="flows", Key=item["Key"])["LastModified"], item["ETag"]

    S3Storage("flows", endpoint_url=s3).add_flow(triple)
    first = written()
    aws(s3).put_object(Bucket="flows", Key="triple-marker", Body=b"")
    S3Storage("flows", endpoint_url=s3).add_flow(triple)
    assert written() == first


def test_a_key_is_for_one_flow_and_its_last_version(s3: str) -> None:
    storage = S3Storage("flows", "team/etl", endpoint_url=s3)
    location = storage.add_flow(double)
    assert location.startswith("team/etl#")
    with pytest.raises(InvalidInput, match=r"team/etl is the object of flow 'double', and can't be that of 'triple'"):
        storage.add_flow(triple)
    S3Storage("flows", "team/etl", endpoint_url=s3).add_flow(triple)
    with pytest.raises(SealBroken, match="object team/etl in bucket flows was changed since it was submitted"):
        storage.get_flow(location)


def test_an_object_that_was_deleted_is_named(s3: str) -> None:
    storage = S3Storage("flows", endpoint_url=s3)
    location = storage.add_flow(double)
    key = location.partition("#")[0]
    aws(s3).delete_object(Bucket="flows", Key=key)
    with pytest.raises(InvalidInput, match=f"there is no object {key} in bucket flows any more: submit the flow again"):
        storage.get_flow(location)


def test_a_bucket_that_does_not_exist(s3: str) -> None:
    with pytest.raises(InvalidInput, match=f"bucket nowhere at {s3}: there is no such bucket: create it"):
        S3Storage("nowhere", endpoint_url=s3).add_flow(double)


def test_credentials_that_s3_does_not_know(guarded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_credentials(monkeypatch, "AKIAIOSFODNN7EXAMPLE", CANARY)
    storage = S3Storage("flows", region_name="eu-west-1", endpoint_url=guarded)
    with pytest.raises(InvalidInput, match="doesn't know the access key: set AWS_ACCESS_KEY_ID") as error:
        storage.add_flow(double)
    assert CANARY not in str(error.value)


def test_a_right_that_is_missing_is_named(guarded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    iam = aws(guarded, "iam")
    iam.create_user(UserName="reader")
    rules = [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}]
    iam.put_user_policy(
        UserName="reader", PolicyName="reads", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": rules})
    )
    key = iam.create_access_key(UserName="reader")["AccessKey"]
    set_credentials(monkeypatch, key["AccessKeyId"], key["SecretAccessKey"])
    with pytest.raises(InvalidInput, match="access is denied: the credentials need s3:PutObject"):
        S3Storage("flows", region_name="eu-west-2", endpoint_url=guarded).add_flow(double)


def test_no_credentials(s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(InvalidInput, match="no credentials of AWS: set AWS_ACCESS_KEY_ID"):
        S3Storage("flows", region_name="eu-west-3", endpoint_url=s3).add_flow(double)


def test_a_service_that_does_not_answer_is_asked_again_later() -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    storage = S3Storage("flows", endpoint_url=nobody)
    with pytest.raises(ServerUnavailable, match=f"bucket flows at {nobody} doesn't answer"):
        storage.add_flow(double)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("",), "S3Storage.bucket: must be a bucket's name or the ARN of an access point, got ''"),
        (("s3://flows/etl",), "got 's3://flows/etl': the name alone, without s3:// and key"),
        ((None,), "S3Storage.bucket: must be a bucket's name"),
        (("flows", "etl/"), "S3Storage.key: must be the key of one object, got 'etl/', which is a folder's"),
        (("flows", "k" * 1025), "S3Storage.key: must have at most 1,024 bytes, got 1,025"),
        (("flows", ""), "S3Storage.key: must be a text, got ''"),
        (("flows", None, 1), "S3Storage.region_name: must be a text, got 1"),
        (("flows", None, None, "s3.example.org"), "S3Storage.endpoint_url: must be an address such as https://"),
        (("flows", None, None, "https://u:p@s3.example.org"), "S3Storage.endpoint_url: .* without credentials"),
    ],
)
def test_a_wrong_argument_is_named(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        S3Storage(*arguments)


def test_an_access_point_is_a_bucket() -> None:
    assert S3Storage("arn:aws:s3:eu-west-1:123456789012:accesspoint/flows").key is None
