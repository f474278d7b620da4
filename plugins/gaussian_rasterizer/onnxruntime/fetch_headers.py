"""Download the headers of ONNX Runtime, which its wheels do not contain, from Debian's archive.

::

    python fetch_headers.py FOLDER      # FOLDER/onnxruntime_c_api.h, …

Only the standard library is used. The package is checked against its sha256 before it is opened,
and of it only the headers are written, by their own names.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import sys
import tarfile
import urllib.request
from pathlib import Path, PurePosixPath

URL = (
    "https://deb.debian.org/debian/pool/main/o/onnxruntime/"
    "libonnxruntime-dev_1.21.0+dfsg-1_amd64.deb"
)
SHA256 = "14f7d959d5deacbcf1504830d4189f91fc67382b399ed9ae9d3aa9c4050ced08"
MAX_BYTES = 2**20  # it has 85340
INCLUDE = PurePosixPath("usr/include/onnxruntime")
LAST = "onnxruntime_c_api.h"
SECONDS = 60


def main(folder: Path) -> None:
    """Fill ``folder``; the header that a build looks for comes last."""
    with urllib.request.urlopen(URL, timeout=SECONDS) as response:
        package = response.read(MAX_BYTES)
    found = hashlib.sha256(package).hexdigest()
    if found != SHA256:
        raise OSError(f"{URL} expects sha256 {SHA256}, found {found}")
    headers: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(member(package, "data.tar.xz")), mode="r:xz") as archive:
        for entry in archive:
            path = PurePosixPath(entry.name)
            content = archive.extractfile(entry) if entry.isfile() else None
            if content is not None and path.parent == INCLUDE:
                headers[path.name] = content.read()
    folder.mkdir(parents=True, exist_ok=True)
    for name in sorted(headers, key=lambda name: name == LAST):
        (folder / name).write_bytes(headers[name])


def member(package: bytes, name: str) -> bytes:
    """One file of an ``ar`` archive, which a Debian package is (man 5 ar)."""
    magic, header = b"!<arch>\n", 60
    if not package.startswith(magic):
        raise OSError("the package is no ar archive")
    position = len(magic)
    while position + header <= len(package):
        fields = package[position : position + header]
        size = int(fields[48:58])
        position += header
        if fields[:16].decode().rstrip(" /") == name:
            return package[position : position + size]
        position += size + size % 2
    raise OSError(f"the package holds no {name}")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except (OSError, http.client.HTTPException) as error:
        sys.exit(
            f"ONNX Runtime's headers could not be had: {error}. talksplat is built without its "
            "operator for ONNX Runtime."
        )
