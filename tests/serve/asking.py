"""A plain HTTP client."""

import urllib.error
import urllib.request

KEY = "a-key"


def ask(
    address: str, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers of the answer; JSON and the right key unless ``headers`` say otherwise."""
    sent = {"content-type": "application/json", "authorization": f"Bearer {KEY}"} | (headers or {})
    request = urllib.request.Request(address + path, body, sent, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read(), {name.lower(): value for name, value in answer.headers.items()}
    except urllib.error.HTTPError as error:
        return error.code, error.read(), {name.lower(): value for name, value in error.headers.items()}
