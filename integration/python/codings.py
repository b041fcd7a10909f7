"""Content codings, undone by Python's libraries.

    python codings.py <coding> <coded >plain
"""

import gzip
import sys
import zlib

import zstandard


def gunzip(data):
    """One gzip member that ends where the data does: what follows a member, many readers never see."""
    member = zlib.decompressobj(wbits=31)
    plain = member.decompress(data) + member.flush()
    if not member.eof:
        raise ValueError("the gzip member has no end")
    if member.unused_data:
        raise ValueError(f"{len(member.unused_data)} bytes after the gzip member's end")
    if gzip.decompress(data) != plain:
        raise ValueError("gzip and zlib disagree")
    return plain


def unzstd(data):
    """One zstd frame that ends where the data does."""
    frame = zstandard.ZstdDecompressor().decompressobj()
    plain = frame.decompress(data)
    if not frame.eof:
        raise ValueError("the zstd frame has no end")
    if frame.unused_data:
        raise ValueError(f"{len(frame.unused_data)} bytes after the zstd frame's end")
    return plain


# Another coding is one more entry.
CODINGS = {"identity": bytes, "gzip": gunzip, "zstd": unzstd}

if __name__ == "__main__":
    sys.stdout.buffer.write(CODINGS[sys.argv[1]](sys.stdin.buffer.read()))
