"""Archives of data sets: fetched so that a download can go on, checked, and unpacked safely.

What a file is called is what it is: a download is `*.part` until its hash is right, and what is
unpacked is in a hidden folder until all of it is there. Nothing that stands already is overwritten.
"""

from __future__ import annotations

import errno
import hashlib
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

from sltlib.base import files
from sltlib.base.progress import bar

BLOCK = 1 << 20  # bytes read at a time
RATIO, SLACK = 50, 100 << 20  # an archive may unpack to this many times its size, and so many bytes more
MEMORY = 2 << 30  # bytes that an archive may hold to be read without unpacking
MEMBERS = 1_000_000  # files that an archive may hold


@dataclass(frozen=True)
class Archive:
    """A published archive: what its file is called, where it is, the md5 that its authors or readers give.

    holds : the names that it puts into the folder where it is unpacked.
    nested : whether it holds .zip files that are to be unpacked as well.
    """

    name: str
    url: str
    md5: str
    holds: tuple[str, ...]
    nested: bool = False


def md5(path: Path) -> str:
    """Hash of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def download(archive: Archive, folder: Path) -> Path:
    """The archive in `folder`, fetched unless it is there; what an earlier call began is gone on with.

    Raises ValueError where another file has its name (which is left alone), where what arrived is not
    the published archive, or where the network fails: then it says how to place the file by hand.
    OSError where the disk is full names the file.
    """
    import http.client  # these take as long to import as NumPy, and only a download needs them

    from filelock import FileLock, Timeout

    path = Path(folder) / archive.name
    part = path.with_name(f"{archive.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path.with_name(f".{archive.name}.lock"), timeout=0):
            if path.exists():
                if (found := md5(path)) != archive.md5:
                    raise ValueError(
                        f"{path} is not the published archive (its md5 is {found}, want {archive.md5}): move it away"
                    )
                return path
            try:
                _fetch(archive.url, part)
            except (OSError, http.client.HTTPException) as error:  # URLError and time-outs are OSErrors
                if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    raise OSError(error.errno, error.strerror, str(part)) from error
                kept = f"what arrived is kept in {part}, and the next call goes on from there; " * part.exists()
                raise ValueError(
                    f"{archive.url} cannot be fetched ({_reason(error)}): {kept}without a network put the file"
                    f" (md5 {archive.md5}) at {path} and give the same command again"
                ) from error
            files.sync(part)
            if (found := md5(part)) != archive.md5:
                part.unlink()
                raise ValueError(
                    f"{archive.url} gave another file (its md5 is {found}, want {archive.md5}): it is not kept;"
                    f" try again, or put the right file at {path}"
                )
            os.replace(part, path)
            files.sync(path.parent)
            return path
    except Timeout:
        raise ValueError(f"another process is fetching {path}: wait for it") from None


def _fetch(url, part):
    """Append to `part` what is missing of a file; a server that knows no ranges sends it from the start."""
    import urllib.error
    import urllib.request

    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "sltlib"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        answer = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # no such range: all is there, or what is there is of another file
            if error.headers.get("Content-Range") != f"bytes */{start}":
                part.unlink()
                _fetch(url, part)
            return
        raise
    with answer:
        span = answer.headers.get("Content-Range", "")
        if answer.status != 206 or not span.startswith(f"bytes {start}-"):
            start = 0
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length and length.isdigit() else None
        with open(part, "ab" if start else "wb") as file, bar(
            f"fetching {part.stem}", total, initial=start, unit="B", unit_scale=True
        ) as shown:
            while block := answer.read(BLOCK):
                file.write(block)
                shown.update(len(block))
    if total is not None and part.stat().st_size < total:
        raise OSError(f"the connection ended after {part.stat().st_size:,} of {total:,} bytes")


def _reason(error):
    return getattr(error, "reason", None) or error


def extract(archive: Path, folder: Path, nested: bool = False) -> list[Path]:
    """Unpack a .tar (gz, bz2, xz) or .zip into `folder`, all of it or nothing; what it put there.

    Refused with one ValueError: a file that is none of these or is damaged, names that leave the
    folder, links and devices, a size that no data set has, names that stand in `folder` already.
    """
    archive, folder = Path(archive), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files.sweep(folder)
    own = files.scratch(folder / archive.name)
    try:
        own.mkdir()
        _unpack(archive, own)
        for inner in sorted(own.glob("*.zip")) if nested else []:
            _unpack(inner, own)
            inner.unlink()
        made = [folder / path.name for path in sorted(own.iterdir())]
        for path in made:
            if os.path.lexists(path):
                raise ValueError(f"{path} is there already, and {archive.name} would overwrite it: move it away")
        os.sync()  # tens of thousands of small files: one call, before they have their final names
        for path in made:
            os.rename(own / path.name, path)
        files.sync(folder)
        return made
    finally:
        files.remove(own)


def _unpack(archive, folder):
    # Closed, not left to the collector, where a member is refused: the archive is open until then.
    with closing(_files(archive, RATIO * archive.stat().st_size + SLACK)) as members:
        for name, blocks in members:
            path = folder / name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                out = open(path, "xb")
            except (FileExistsError, NotADirectoryError) as error:
                raise ValueError(f"{archive} holds {name!r} where another member is: it is not unpacked") from error
            with files.named(path), out:
                for block in blocks:
                    out.write(block)


def contents(archive: Path) -> dict[str, bytes]:
    """{path: bytes} of every file in an archive, held to the same as in `extract`; nothing is written."""
    found = {}
    with closing(_files(archive, min(MEMORY, RATIO * archive.stat().st_size + SLACK))) as members:
        for name, blocks in members:
            if name in found:
                raise ValueError(f"{archive} holds {name!r} where another member is: it is not unpacked")
            found[name] = b"".join(blocks)
    return found


def _files(archive, most):
    """(relative path, its bytes in blocks) of each file of an archive of `most` bytes; take the blocks at once."""
    room, count = most, 0

    def blocks(file):
        nonlocal room
        for block in _readable(archive, iter(lambda: file.read(BLOCK), b"")):
            room -= len(block)
            if room < 0:
                raise ValueError(f"{archive} unpacks to more than {most:,} bytes: it is not unpacked")
            yield block

    with closing(_members(archive)) as members:
        for name, file in _readable(archive, members):
            path, count = _inside(archive, name), count + 1
            if count > MEMBERS:
                raise ValueError(f"{archive} holds more than {MEMBERS:,} files: it is not unpacked")
            if file is not None and not path.startswith("__MACOSX/"):  # what macOS adds to a .zip
                yield path, blocks(file)


def _members(archive):
    """(name, file to read, None for a folder) of each member."""
    if tarfile.is_tarfile(archive):  # first: a .tar may end in a .zip and pass for one
        with tarfile.open(archive, "r:*") as pack:
            for member in pack:
                if not (member.isdir() or member.isreg()):
                    raise ValueError(f"it holds {member.name!r}, a link or a device")
                yield member.name, None if member.isdir() else pack.extractfile(member)
            for _ in range(64):  # checksums stand at the end, behind what tarfile reads
                if not pack.fileobj.read(BLOCK):
                    return
            raise ValueError("it goes on after its end")
    elif zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as pack:
            for member in pack.infolist():
                if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise ValueError(f"it holds {member.filename!r}, a link or a device")
                with nullcontext() if member.is_dir() else pack.open(member) as file:
                    yield member.filename, file
    else:
        raise ValueError("it is no .tar or .zip archive")


def _readable(archive, parts):
    """The same parts; what goes wrong in reading them is one ValueError (writing has errors of its own)."""
    try:
        yield from parts
    except (
        tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, OSError, RuntimeError,
        NotImplementedError, ValueError,
    ) as error:  # fmt: skip
        raise ValueError(f"{archive} cannot be unpacked ({error})") from error


def _inside(archive, name):
    """A member's path, relative, or ValueError where it would leave the folder."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if name[:1] in ("/", "\\") or ".." in parts or ":" in "".join(parts[:1]) or "\0" in name:
        raise ValueError(f"{archive} holds {name!r}, a path outside its folder: it is not unpacked")
    return "/".join(parts)
