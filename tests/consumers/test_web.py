"""The network: http.client, urllib, http.server, requests, httpx, FTP, S3."""

from __future__ import annotations

import ftplib
import hashlib
import http.client
import shutil
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Callable

import pytest

from iii_sync.errors import ChannelTruncatedError

from .corpus import SIZE, Corpus
from .remote import WAIT, Remote, sha256
from .web import Web

#: No proxy of the environment stands between two ends of loopback.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def test_http_client_upload(remote: Remote, corpus: Corpus, web: Web) -> None:
    """A reader as the body of a request, sent in chunks as it arrives."""
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=WAIT)
    connection.request("PUT", "/upload", body=remote.send(corpus.blob))
    assert connection.getresponse().status == 201
    connection.close()
    assert web.headers["upload"]["transfer-encoding"] == "chunked"
    assert sha256(web.file("upload")) == sha256(corpus.blob)


def test_http_client_upload_with_a_length(remote: Remote, corpus: Corpus, web: Web) -> None:
    """Without chunks, when the length is known."""
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=WAIT)
    length = {"Content-Length": str(corpus.blob.stat().st_size)}
    connection.request("PUT", "/upload", body=remote.send(corpus.blob), headers=length)
    assert connection.getresponse().status == 201
    connection.close()
    assert "transfer-encoding" not in web.headers["upload"]
    assert sha256(web.file("upload")) == sha256(corpus.blob)


def test_http_client_upload_of_a_cut_stream(remote: Remote, corpus: Corpus, web: Web) -> None:
    """The request raises, and never becomes a whole one."""
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=WAIT)
    with pytest.raises(ChannelTruncatedError):
        connection.request("PUT", "/upload", body=remote.send(corpus.blob, cut=SIZE // 2))
    connection.close()
    assert web.broken.get(timeout=WAIT) == "upload"


def test_http_client_download(remote: Remote, corpus: Corpus, web: Web) -> None:
    """A response is copied into a writer."""
    received = remote.receive()
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=WAIT)
    connection.request("GET", f"/{corpus.blob.name}")
    with received.writer as f, connection.getresponse() as response:
        shutil.copyfileobj(response, f)
    connection.close()
    assert sha256(received.whole()) == sha256(corpus.blob)


def test_urllib_upload(remote: Remote, corpus: Corpus, web: Web) -> None:
    """A reader as the data of urlopen."""
    request = urllib.request.Request(f"{web.url}/upload", data=remote.send(corpus.blob), method="PUT")
    with OPENER.open(request, timeout=WAIT) as response:
        assert response.status == 201
    assert web.headers["upload"]["transfer-encoding"] == "chunked"
    assert sha256(web.file("upload")) == sha256(corpus.blob)


def test_urllib_download(remote: Remote, corpus: Corpus, web: Web) -> None:
    """urlopen into a writer."""
    received = remote.receive()
    with received.writer as f, OPENER.open(f"{web.url}/{corpus.blob.name}", timeout=WAIT) as response:
        shutil.copyfileobj(response, f)
    assert sha256(received.whole()) == sha256(corpus.blob)


def test_http_server(remote: Remote, corpus: Corpus, web: Web, tmp_path: Path) -> None:
    """A server answers with what arrives on a channel."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(corpus.blob.stat().st_size))
        handler.end_headers()
        shutil.copyfileobj(remote.send(corpus.blob), handler.wfile)

    web.live["live"] = answer
    with OPENER.open(f"{web.url}/live", timeout=WAIT) as response, (tmp_path / "answer").open("wb") as target:
        shutil.copyfileobj(response, target)
    assert sha256(tmp_path / "answer") == sha256(corpus.blob)


def test_requests_upload(remote: Remote, corpus: Corpus, web: Web) -> None:
    """requests.put(data=reader)."""
    requests = pytest.importorskip("requests")
    with requests.Session() as session:
        session.trust_env = False
        response = session.put(f"{web.url}/upload", data=remote.send(corpus.blob), timeout=WAIT)
    assert response.status_code == 201
    assert web.headers["upload"]["transfer-encoding"] == "chunked"
    assert sha256(web.file("upload")) == sha256(corpus.blob)


def test_requests_download(remote: Remote, corpus: Corpus, web: Web) -> None:
    """iter_content, and the raw response."""
    requests = pytest.importorskip("requests")
    chunks, raw = remote.receive("chunks"), remote.receive("raw")
    with requests.Session() as session:
        session.trust_env = False
        with session.get(f"{web.url}/{corpus.blob.name}", stream=True, timeout=WAIT) as response:
            with chunks.writer as f:
                f.writelines(response.iter_content(100_000))
        with session.get(f"{web.url}/{corpus.blob.name}", stream=True, timeout=WAIT) as response:
            with raw.writer as f:
                shutil.copyfileobj(response.raw, f)
    assert sha256(chunks.whole()) == sha256(raw.whole()) == sha256(corpus.blob)


def test_httpx_upload(remote: Remote, corpus: Corpus, web: Web) -> None:
    """httpx.put(content=reader), which iterates over chunks as they arrive."""
    httpx = pytest.importorskip("httpx")
    with httpx.Client(trust_env=False, timeout=WAIT) as client:
        response = client.put(f"{web.url}/upload", content=remote.send(corpus.blob))
    assert response.status_code == 201
    assert web.headers["upload"]["transfer-encoding"] == "chunked"
    assert sha256(web.file("upload")) == sha256(corpus.blob)


def test_httpx_upload_of_a_form(remote: Remote, corpus: Corpus, web: Web) -> None:
    """httpx.post(files=…) with a reader: the form has no length, and goes out in chunks."""
    httpx = pytest.importorskip("httpx")
    with httpx.Client(trust_env=False, timeout=WAIT) as client:
        response = client.post(f"{web.url}/upload", files={"file": ("blob.bin", remote.send(corpus.blob))})
    assert response.status_code == 201
    assert corpus.blob.read_bytes() in web.file("upload").read_bytes()


def put_with_urllib(url: str, reader: Any) -> None:
    """urlopen."""
    OPENER.open(urllib.request.Request(url, data=reader, method="PUT"), timeout=WAIT)


def put_with_requests(url: str, reader: Any) -> None:
    """requests.put."""
    with pytest.importorskip("requests").Session() as session:
        session.trust_env = False
        session.put(url, data=reader, timeout=WAIT)


def put_with_httpx(url: str, reader: Any) -> None:
    """httpx.put."""
    with pytest.importorskip("httpx").Client(trust_env=False, timeout=WAIT) as client:
        client.put(url, content=reader)


@pytest.mark.parametrize("put", [put_with_urllib, put_with_requests, put_with_httpx])
def test_upload_of_a_cut_stream(remote: Remote, corpus: Corpus, web: Web, put: Callable[[str, Any], None]) -> None:
    """The request raises, with the reader's error or one of its own around it; the server has no whole one."""
    with pytest.raises(OSError) as caught:
        put(f"{web.url}/upload", remote.send(corpus.blob, cut=SIZE // 2))
    assert "the stream was cut" in str(caught.value)
    assert web.broken.get(timeout=WAIT) == "upload"


def test_httpx_download(remote: Remote, corpus: Corpus, web: Web) -> None:
    """iter_bytes into a writer."""
    httpx = pytest.importorskip("httpx")
    received = remote.receive()
    with httpx.Client(trust_env=False, timeout=WAIT) as client:
        with client.stream("GET", f"{web.url}/{corpus.blob.name}") as response, received.writer as f:
            for chunk in response.iter_bytes():
                f.write(chunk)
    assert sha256(received.whole()) == sha256(corpus.blob)


@pytest.fixture
def ftp(tmp_path: Path) -> Iterator[ftplib.FTP]:
    """A client of an FTP server on loopback whose root is ``tmp_path``."""
    authorizer = pytest.importorskip("pyftpdlib.authorizers").DummyAuthorizer()
    authorizer.add_user("user", "secret", str(tmp_path), perm="elradfmwMT")
    base = pytest.importorskip("pyftpdlib.handlers").FTPHandler
    handler = type("Handler", (base,), {"authorizer": authorizer})
    server = pytest.importorskip("pyftpdlib.servers").FTPServer(("127.0.0.1", 0), handler)
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            server.serve_forever(timeout=0.02, blocking=False)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    client = ftplib.FTP(timeout=WAIT)
    try:
        client.connect("127.0.0.1", server.address[1])
        client.login("user", "secret")
        yield client
    finally:
        client.close()
        over.set()
        thread.join(WAIT)
        server.close_all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pyftpdlib uses asyncore before Python 3.12
def test_ftp(remote: Remote, corpus: Corpus, ftp: ftplib.FTP, tmp_path: Path) -> None:
    """storbinary from a reader, retrbinary into a writer."""
    reader: Any = remote.send(corpus.blob)
    ftp.storbinary("STOR stored", reader)
    assert sha256(tmp_path / "stored") == sha256(corpus.blob)
    received = remote.receive()
    with received.writer as f:
        ftp.retrbinary("RETR stored", f.write)
    assert sha256(received.whole()) == sha256(corpus.blob)


def of_aws(test: Any) -> Any:
    """Let pass what boto3, botocore and moto say about themselves."""
    for mark in ("ignore::DeprecationWarning", "ignore:Boto3 will no longer support Python"):
        test = pytest.mark.filterwarnings(mark)(test)
    return test


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """A client of an S3 server on loopback, with an empty bucket."""
    boto3 = pytest.importorskip("boto3")
    config = pytest.importorskip("botocore.config").Config(
        proxies={},
        s3={"addressing_style": "path"},
        response_checksum_validation="when_required",  # moto 5.1, the last for Python 3.9, has wrong ones for parts
    )
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=config,
    )
    client.create_bucket(Bucket="bucket")
    yield client
    client.close()
    server.stop()


@of_aws
def test_s3_upload(remote: Remote, corpus: Corpus, s3: Any) -> None:
    """upload_fileobj with a reader: in parts, since it is above 8 MiB."""
    s3.upload_fileobj(remote.send(corpus.blob), "bucket", "upload")
    body = s3.get_object(Bucket="bucket", Key="upload")["Body"]
    assert hashlib.sha256(body.read()).hexdigest() == sha256(corpus.blob)
    assert s3.head_object(Bucket="bucket", Key="upload")["ETag"].strip('"').endswith("-2")


@of_aws
def test_s3_upload_of_a_cut_stream(remote: Remote, corpus: Corpus, s3: Any) -> None:
    """The upload raises, and the bucket has no such object."""
    with pytest.raises(ChannelTruncatedError):
        s3.upload_fileobj(remote.send(corpus.blob, cut=SIZE // 2), "bucket", "cut")
    assert "cut" not in [item["Key"] for item in s3.list_objects_v2(Bucket="bucket").get("Contents", [])]


@of_aws
def test_s3_download(remote: Remote, corpus: Corpus, s3: Any) -> None:
    """download_fileobj into a writer, and a StreamingBody copied into another."""
    s3.put_object(Bucket="bucket", Key="download", Body=corpus.blob.read_bytes())
    received, copied = remote.receive("download"), remote.receive("copy")
    with received.writer as f:
        s3.download_fileobj("bucket", "download", f)
    with copied.writer as f:
        shutil.copyfileobj(s3.get_object(Bucket="bucket", Key="download")["Body"], f)
    assert sha256(received.whole()) == sha256(copied.whole()) == sha256(corpus.blob)
