"""From a path or URL to the folder it names.

URLs are taken as they are written, without percent-decoding, as the AWS command line does: "s3://bucket/a b%20c" is
the key "a b%20c". Only file:// URLs are decoded. A query of options comes last: "s3://bucket/p?region=eu-west-1".
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

from ..errors import StorageError, UsageError, cut
from .folder import Folder
from .local import LocalFolder, local_path

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
#: What a URL becomes by a slip: a local path would be made of it.
_SLIP = re.compile(r"(file|s3a?|gs|gcs|abfss?|hdfs|viewfs|hf|https?)(?::/?|//+)(?!/)(.*)", re.IGNORECASE | re.DOTALL)
_NOT_IN_KEYS = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # listings of S3, which are XML, cannot show these
_QUERY = re.compile(r"\?[A-Za-z_]+=")  # any other "?" is part of a name


def open_folder(location: str | os.PathLike[str]) -> Folder:
    """The folder at a local path, a file:// URL or a URL of an object store. Nothing is read, written or connected.

    A PathLike is always a local path.

    >>> folder = open_folder("data/depo/train")
    >>> folder.where("_manifest")
    'data/depo/train/_manifest'

    Raises:
        UsageError: it names no folder, the scheme is unknown or needs a package that is not installed.
        StorageError: it is relative, and the current folder is gone.
    """
    text = os.fspath(location)
    scheme = _scheme_of(text)
    if not text or "\0" in text:
        raise UsageError(f"{cut(repr(text))} names no folder; give a path or a URL such as s3://bucket/prefix")
    if scheme is None:
        if slip := _SLIP.fullmatch(text):
            url = f"{slip[1].lower()}://{'/' if slip[1].lower() == 'file' else ''}{slip[2]}"
            raise UsageError(
                f"{cut(repr(text))} is no URL; write {cut(url)} (or {cut('./' + text)} for a local folder of that name)"
            )
        shown = local_path(text)
        try:  # it stays the same folder when the current one changes
            return LocalFolder(text.rstrip("/") or "/", shown.absolute(), shown)
        except FileNotFoundError as error:
            raise StorageError(f"cannot open {cut(repr(text))}: the current folder is gone") from error
    if scheme == "file":
        host, slash, rest = text[len("file://") :].partition("/")
        if host not in ("", "localhost") or not slash:
            raise UsageError(f"{text!r} names no local folder; write file:///absolute/path")
        path = _decoded("/" + rest)
        if "\0" in path:
            raise UsageError(f"{cut(repr(text))} names no folder")
        return LocalFolder(text.rstrip("/"), Path(path), Path(path))
    if _NOT_IN_KEYS.search(text):
        raise UsageError(
            f"{cut(repr(text))} holds a control character, or one that is not UTF-8, as no name in {scheme}:// may"
        )
    from .remote import open_remote  # here, so that local work never loads it

    return open_remote(*_split_query(text))


def split_url(location: str | os.PathLike[str]) -> tuple[Folder, str]:
    """The folder and the name of a file.

    >>> split_url("s3://bucket/depo/_manifest?region=eu-west-1")
    (open_folder('s3://bucket/depo?region=eu-west-1'), '_manifest')

    Raises:
        UsageError: there is no name, or as `open_folder`.
    """
    text = os.fspath(location)
    scheme = _scheme_of(text)
    base, query = (text, "") if scheme in (None, "file") else _split_query(text)
    start = len(scheme) + len("://") if scheme else 0
    head, slash, name = base[start:].rpartition("/")
    if name in ("", ".", "..") or (scheme and not slash):
        raise UsageError(f"{text!r} names no file")
    folder = open_folder(base[:start] + (head or slash or ".") + query)
    return folder, _decoded(name) if scheme == "file" else name


def _decoded(text: str) -> str:
    return unquote(text, errors="surrogateescape")  # as Python takes names that are not UTF-8


def _scheme_of(text: str) -> str | None:
    match = _SCHEME.match(text)
    return match[1].lower() if match else None


def _split_query(url: str) -> tuple[str, str]:
    match = _QUERY.search(url)
    return (url[: match.start()], url[match.start() :]) if match else (url, "")
