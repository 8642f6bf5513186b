"""Finds pickles in files: plain ones, in archives, embedded in other files, and written as text."""

import base64
import binascii
import contextlib
import gzip
import io
import pickletools
import re
import tarfile
import zipfile
from pathlib import Path

_CALLS = {"GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "REDUCE", "BUILD"}
# The beginning of a pickle of protocol 4 or 5 with a frame, as every pickler writes it.
_BEGINNING = re.compile(rb"\x80[\x04\x05]\x95")
_IN_HEX = re.compile(rb"80(?:04|05)95[0-9a-fA-F]+")
_IN_BASE64 = re.compile(rb"gA[SW]V[0-9A-Za-z+/_-]+")


def pickles_in(folder):
    """Return "path" or "path: where in it" of every pickle below a folder."""
    return [
        f"{path.relative_to(folder)}{where}"
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
        for where in _found(path.read_bytes())
    ]


def _found(content):
    found = [] if not _is_pickle(content) else [""]
    begun = (match.start() for match in _BEGINNING.finditer(content) if match.start())
    found += [f": at byte {at}" for at in begun if _is_pickle(content[at:])]
    for written, decode in ((_IN_HEX, _from_hex), (_IN_BASE64, _from_base64)):
        found += [
            f": as text at byte {match.start()}"
            for match in written.finditer(content)
            if _is_pickle(decode(match.group()))
        ]
    for name, member in _members(content):
        found += [f": {name}{where}" for where in _found(member)]
    return found


def _is_pickle(content):
    """Whether bytes begin with a pickle that says its protocol, or that calls something."""
    names = []
    try:
        for opcode, _, _ in pickletools.genops(content):
            names.append(opcode.name)
    except Exception:
        return False
    return names[0] == "PROTO" or not _CALLS.isdisjoint(names)


def _from_hex(text):
    return binascii.unhexlify(text[: len(text) // 2 * 2])


def _from_base64(text):
    whole = text[: len(text) // 4 * 4].translate(bytes.maketrans(b"-_", b"+/"))
    return base64.b64decode(whole)


def _members(content):
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            yield from ((name, archive.read(name)) for name in archive.namelist())
        return
    if content.startswith(b"\x1f\x8b"):
        yield "gzip", gzip.decompress(content)
        return
    with (
        contextlib.suppress(tarfile.TarError),
        tarfile.open(fileobj=io.BytesIO(content)) as archive,
    ):
        for member in archive:
            if member.isfile():
                yield member.name, archive.extractfile(member).read()
