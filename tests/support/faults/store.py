"""The object store of the campaigns: moto and the proxy that spoils requests, started when first needed."""

from __future__ import annotations

import atexit
import os
import uuid
from contextlib import ExitStack
from functools import cache

from s3 import Server

_open = ExitStack()
atexit.register(_open.close)


@cache
def server() -> Server:
    return _open.enter_context(Server("moto"))


@cache
def proxy() -> Server:
    """The same store behind a proxy that spoils requests."""
    return _open.enter_context(Server("proxy", server().endpoint))


def bucket(endpoint: str = "") -> str:
    """A fresh bucket's name; the environment leads to `endpoint`, by default the store, and to no other."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update(
        AWS_ACCESS_KEY_ID="testing", AWS_SECRET_ACCESS_KEY="testing", AWS_REGION="us-east-1",
        AWS_ENDPOINT_URL=endpoint or server().endpoint, AWS_EC2_METADATA_DISABLED="true",
        AWS_CONFIG_FILE=os.devnull, AWS_SHARED_CREDENTIALS_FILE=os.devnull,
    )  # fmt: skip
    name = f"faults-{uuid.uuid4().hex[:12]}"
    server().make_bucket(name)
    return name
