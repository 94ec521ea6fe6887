"""Compression of pages: zstd or snappy, and their frames around bytes that no compressor need see.

To start a compressor costs as much as to compress a kilobyte or two.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ..base import unreadable
from .fields import CompressionCodec
from .thrift import varint

CODECS = {
    "none": CompressionCodec.UNCOMPRESSED, "snappy": CompressionCodec.SNAPPY, "zstd": CompressionCodec.ZSTD
}  # fmt: skip
_ZSTD_LEVEL = 1


def codec_of(codec_id: int) -> pa.Codec | None:
    """The compressor of a CompressionCodec, None for uncompressed pages.

    Raises:
        DataError: it is another.
    """
    name = next((name for name, known in CODECS.items() if known == codec_id), None)
    if name is None:
        raise unreadable("Parquet", f"unexpected compression {codec_id}")
    if name == "none":
        return None
    return pa.Codec(name, compression_level=_ZSTD_LEVEL) if name == "zstd" else pa.Codec(name)


def packed_page(content: np.ndarray, codec: pa.Codec | None, worth: bool) -> bytes | pa.Buffer:
    """A page (uint8) as a chunk with that codec has it; only what is `worth` it is compressed."""
    if codec is None:
        return content.tobytes()
    return codec.compress(content) if worth else stored(content, codec)


def stored(content: np.ndarray, codec: pa.Codec) -> bytes:
    """Less than 64 KiB of bytes (uint8) as they are, in a frame that decompresses to them.

    It is what the compressors write around bytes in which they find nothing: https://www.rfc-editor.org/rfc/rfc8878 and
    https://github.com/google/snappy/blob/main/format_description.txt specify it.
    """
    size = len(content)
    assert size < 1 << 16, size
    if codec.name == "zstd":  # magic number, size, and one raw block that is the last
        head = b"\x20" + bytes((size,)) if size < 256 else b"\x60" + (size - 256).to_bytes(2, "little")
        head = b"\x28\xb5\x2f\xfd" + head + (size << 3 | 1).to_bytes(3, "little")
    elif size == 0:
        head = varint(size)
    else:  # size, and one literal
        head = varint(size) + (bytes((size - 1 << 2,)) if size <= 60 else b"\xf4" + (size - 1).to_bytes(2, "little"))
    return head + content.tobytes()
