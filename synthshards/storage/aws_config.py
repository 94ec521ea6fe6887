"""Where S3 is, by the environment and the config files of AWS, in the order that the AWS tools keep.

pyarrow takes credentials and regions from these files, but not endpoints: it would go to amazonaws.com.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ..errors import UsageError
from .folder import reason

#: The variables that name the files, and where the files are without them.
_FILES = {"AWS_CONFIG_FILE": "~/.aws/config", "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials"}


def endpoint() -> str | None:
    """The endpoint of S3 that is set, None where that is Amazon's own.

    Raises:
        UsageError: a file sets one and cannot be read, as where botocore is not installed.
    """
    env = os.environ
    ignored = env.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS") or _setting("ignore_configured_endpoint_urls") or ""
    if ignored.lower() == "true":
        return None
    return env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL") or _setting("endpoint_url")


def region() -> str | None:
    """The region that is set; `UsageError` as for `endpoint`."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or _setting("region")


def _setting(name: str) -> str | None:
    """What the profile in force has for `name`; for S3, where a `services` section says something else."""
    file = _file_with(name)
    if file is None:  # most often; botocore takes a third of a second to load
        return None
    try:
        from botocore.exceptions import BotoCoreError
        from botocore.session import Session
    except ImportError:
        if name == "region":  # pyarrow reads it itself
            from pyarrow.fs import S3FileSystem

            return str(S3FileSystem(anonymous=True).region)
        raise UsageError(
            f"{file} sets {name}, which only botocore can read: pip install 'synthshards[remote]' (or set "
            "AWS_ENDPOINT_URL; AWS_IGNORE_CONFIGURED_ENDPOINT_URLS=true for Amazon's own S3)"
        ) from None
    try:
        session = Session()
        profile: Mapping[str, str] = session.get_scoped_config()
        services = session.full_config.get("services", {})
    except BotoCoreError as error:
        raise UsageError(f"cannot read the AWS configuration ({file}): {reason(error)}") from None
    section = profile.get("services")
    if section is not None and section not in services:
        raise UsageError(f"{file}: the profile names the section [services {section}], which is not there")
    own = services.get(section, {}).get("s3")
    return (own.get(name) if isinstance(own, dict) else None) or profile.get(name)


def _file_with(name: str) -> Path | None:
    """The first of the files that sets `name`, in whichever profile."""
    for variable, usual in _FILES.items():
        with suppress(OSError, RuntimeError):  # absent, not ours to read, or no home
            file = Path(os.environ.get(variable) or usual).expanduser()
            if re.search(rf"^\s*{name}\s*=".encode(), file.read_bytes(), re.MULTILINE):
                return file
    return None
