"""HTTP as clients of an engine see it."""

from __future__ import annotations

import http.client
import json
from typing import Any

__all__ = ["Answer"]


class Answer:
    """A response that was read to its end."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)
