"""Functions that the engine calls over HTTP in the place of a worker.

The real engine refuses plain ``http`` and private addresses unless it is configured otherwise. This one
refuses neither: whoever may register a function here runs on this machine and could call them itself.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import os
import time
import uuid
from dataclasses import dataclass
from http.client import responses
from typing import Callable, Optional
from urllib.parse import urlsplit

from aiohttp import ClientError, ClientSession, ClientTimeout

from .frames import Failure, RegisterFunction
from .jsontext import JSON, JsonObject, decode, encode
from .records import Finish, Outcome, Success

TIMEOUT_MS = 30000
MAX_ANSWER = 64 * 1024 * 1024
"""Bytes of an answer; more are an error."""

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

_logger = logging.getLogger("iii_sync.engine")

_Sign = Callable[[dict[str, str], bytes], None]


@dataclass(frozen=True)
class _Target:
    """Where and how a function is called."""

    id: str
    url: str
    method: str
    timeout: float
    headers: dict[str, str]
    sign: _Sign


class RemoteFunctions:
    """Calls functions over HTTP. Used by one event loop only; its session is made by the first call."""

    def __init__(self) -> None:
        self._session: Optional[ClientSession] = None
        self._calls: set[asyncio.Task[None]] = set()

    def prepare(self, registration: RegisterFunction) -> Callable[[JSON, Finish], None]:
        """Return what calls a function.

        Raises:
            ValueError: Its configuration is not valid, or names a secret that is not there.
        """
        target = _target(registration)

        def call(data: JSON, finish: Finish) -> None:
            task = asyncio.ensure_future(self._call(target, data, finish))
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)

        return call

    async def close(self) -> None:
        """Give up what is under way."""
        calls = list(self._calls)
        for task in calls:
            task.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _call(self, target: _Target, data: JSON, finish: Finish) -> None:
        try:
            outcome = await self._exchange(target, data)
        except (ClientError, OSError, asyncio.TimeoutError, ValueError) as error:
            outcome = Failure("http_request_failed", f"{type(error).__name__}: {error}")
        finish(outcome)

    async def _exchange(self, target: _Target, data: JSON) -> Outcome:
        if self._session is None:
            # Neither proxies nor cookies of the environment: the URL alone says where to go.
            self._session = ClientSession(trust_env=False)
        body = encode(data)
        headers = {
            "Content-Type": "application/json",
            "x-iii-Function-Path": target.id,
            "x-iii-Invocation-ID": str(uuid.uuid4()),
            "x-iii-Timestamp": str(int(time.time())),
            **target.headers,
        }
        target.sign(headers, body)
        async with self._session.request(
            target.method,
            target.url,
            data=body,
            headers=headers,
            allow_redirects=False,
            timeout=ClientTimeout(total=target.timeout),
        ) as response:
            answer = bytearray()
            async for chunk in response.content.iter_any():
                answer += chunk
                if len(answer) > MAX_ANSWER:
                    return Failure("http_response_failed", f"The answer is larger than {MAX_ANSWER} bytes")
            return _outcome(response.status, bytes(answer))


def _outcome(status: int, answer: bytes) -> Outcome:
    value: JSON = None
    parsed = True
    try:
        value = decode(answer) if answer else None
    except ValueError:
        parsed = False
    if status >= 400:
        error = value.get("error") if isinstance(value, dict) else None
        if isinstance(error, dict) and isinstance(error.get("code"), str) and isinstance(error.get("message"), str):
            return Failure(str(error["code"]), str(error["message"]))
        return Failure("http_error", f"HTTP {status} {responses.get(status, '')}".rstrip())
    if not parsed and status < 300:
        return Failure("invalid_response", "The answer is not JSON")
    return Success(value)


def _target(registration: RegisterFunction) -> _Target:
    config = registration.invocation or {}
    url, method = config.get("url"), config.get("method") or "POST"
    if not isinstance(url, str) or urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise ValueError(f"`url` is not an http or https address: {url!r:.200}")
    if method not in _METHODS or not isinstance(method, str):
        raise ValueError(f"`method` is none of {', '.join(_METHODS)}: {method!r:.80}")
    timeout = config.get("timeout_ms")
    if timeout is None:
        timeout = TIMEOUT_MS
    if not isinstance(timeout, int) or isinstance(timeout, bool) or timeout < 0:
        raise ValueError(f"`timeout_ms` is not a number of milliseconds: {timeout!r:.80}")
    headers = config.get("headers")
    if headers is None:
        headers = {}
    if not isinstance(headers, dict):
        raise ValueError("`headers` is not an object")
    named = {name: value for name, value in headers.items() if isinstance(value, str)}
    if len(named) != len(headers):
        raise ValueError("a value of `headers` is not a string")
    return _Target(registration.id, url, method, timeout / 1000, named, _signer(config.get("auth")))


def _signer(auth: JSON) -> _Sign:
    if auth is None:
        return lambda headers, body: None
    kind = auth.get("type") if isinstance(auth, dict) else None
    if not isinstance(auth, dict) or kind not in ("bearer", "api_key", "hmac"):
        raise ValueError("`auth` has none of the types bearer, api_key, hmac")
    if kind == "bearer":
        token = _secret(auth, "token_key")
        return lambda headers, body: headers.update({"Authorization": f"Bearer {token}"})
    if kind == "api_key":
        name, value = auth.get("header"), _secret(auth, "value_key")
        if not isinstance(name, str):
            raise ValueError("`auth.header` is not a string")
        return lambda headers, body: headers.update({str(name): value})
    secret = _secret(auth, "secret_key").encode()

    def sign(headers: dict[str, str], body: bytes) -> None:
        signed = headers["x-iii-Timestamp"].encode() + b":" + base64.b64encode(body)
        headers["x-iii-Signature"] = "sha256=" + hmac.new(secret, signed, hashlib.sha256).hexdigest()

    return sign


def _secret(auth: JsonObject, key: str) -> str:
    """Return the secret that an environment variable of the engine holds."""
    name = auth.get(key)
    if not isinstance(name, str):
        raise ValueError(f"`auth.{key}` is not a string")
    secret = os.environ.get(name)
    if secret is None:
        raise ValueError(f"the environment variable {name}, which `auth.{key}` names, is not set for the engine")
    return secret
