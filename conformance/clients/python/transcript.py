"""What is seen, as text that can be compared line by line."""

import json
import time

from kubernetes import client
from kubernetes.client.exceptions import ApiException

_SERIALIZER = client.ApiClient(client.Configuration())


def section(name):
    """Begins a section."""
    print(f"== {name}", flush=True)


def say(what, seen):
    """Writes what was seen: an object of the API, or anything that JSON can say."""
    value = _SERIALIZER.sanitize_for_serialization(seen)
    print(f"{what}: {json.dumps(value, sort_keys=True, indent=1)}", flush=True)


def refused(what, call, words=True):
    """Writes how the server refuses; its words too, unless they change from run to run."""
    try:
        call()
    except ApiException as error:
        if not words:
            say(what, error.status)
            return
        body = error.body.decode() if isinstance(error.body, bytes) else error.body
        say(what, [error.status, json.loads(body) if body.startswith("{") else body])
        return
    raise AssertionError(f"the server does not refuse: {what}")


def sees(what, ask, limit=60):
    """Waits until something is there: an answer that is neither a refusal nor nothing."""
    deadline = time.monotonic() + limit
    while True:
        try:
            if ask():
                return
        except ApiException:
            pass
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {limit} s: {what}")
        time.sleep(0.1)
