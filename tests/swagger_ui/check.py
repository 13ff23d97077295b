"""A check that fails with a sentence, and the JSON of a server."""

import json
import urllib.request

LIMIT = 30  # seconds; the longest that any one step may take
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Failed(Exception):
    """A promise that does not hold; the text says why."""


def expect(holds, problem):
    if not holds:
        raise Failed(problem)


def ask(url, body=None, method="GET", token=None):
    """Returns the JSON that a server answers, without any proxy."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(url, data, headers, method=method)
    with DIRECT.open(request, timeout=2 * LIMIT) as answer:
        return json.load(answer)
