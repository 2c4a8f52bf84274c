"""Archives: downloads that are cut, wrong or impossible, and archives that are hostile; one clear error each."""

import dataclasses
import errno
import hashlib
import http.server
import io
import os
import shutil
import stat
import tarfile
import threading
import zipfile

import numpy as np
import pytest
from conftest import disk_full_after
from filelock import FileLock
from test_formats import Tiny

from sltlib.data import archives
from sltlib import data
from sltlib.data.archives import Archive

BODY = bytes(range(256)) * 40


class Server(http.server.ThreadingHTTPServer):
    """Serves BODY from this machine; `ranges`, `cut` and `body` say how well, `asked` what was asked for."""

    ranges, cut, body, status = True, None, BODY, None

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = []
        self.url = f"http://127.0.0.1:{self.server_port}/a.bin"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, span = self.server, self.headers.get("Range")
        server.asked.append(span)
        if server.status:
            self.send_error(server.status)
            return
        start = int(span.removeprefix("bytes=").removesuffix("-")) if span and server.ranges else 0
        if start >= len(server.body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.body)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.body) - 1}/{len(server.body)}")
        self.send_header("Content-Length", str(len(server.body) - start))
        self.end_headers()
        self.wfile.write(server.body[start : server.cut])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def archive(server, body=BODY):
    return Archive("a.bin", server.url, hashlib.md5(body).hexdigest(), ("a",))


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


# --- downloads


def test_a_download_is_checked_and_kept(server, tmp_path):
    path = archives.download(archive(server), tmp_path / "new")
    assert path.read_bytes() == BODY and names(tmp_path / "new") == ["a.bin"]
    assert archives.download(archive(server), tmp_path / "new") == path and len(server.asked) == 1


@pytest.mark.parametrize("cut", [0, 1, 5000, len(BODY) - 1])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_was_cut_goes_on(server, tmp_path, cut, ranges):
    server.cut, server.ranges = cut, ranges
    with pytest.raises(ValueError, match="connection ended after|cannot be fetched"):
        archives.download(archive(server), tmp_path)
    assert names(tmp_path) == ["a.bin.part"] and (tmp_path / "a.bin.part").read_bytes() == BODY[:cut]
    server.cut = None
    assert archives.download(archive(server), tmp_path).read_bytes() == BODY
    assert server.asked == [None, f"bytes={cut}-" if cut else None] and names(tmp_path) == ["a.bin"]


def test_a_part_that_is_whole_is_fetched_no_more(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(BODY)
    assert archives.download(archive(server), tmp_path).read_bytes() == BODY
    assert server.asked == [f"bytes={len(BODY)}-"]


def test_a_part_that_is_too_long_is_fetched_anew(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(BODY + b"x")
    assert archives.download(archive(server), tmp_path).read_bytes() == BODY


def test_a_part_of_another_file_is_not_kept(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match="gave another file .* it is not kept"):
        archives.download(archive(server), tmp_path)
    assert names(tmp_path) == []
    assert archives.download(archive(server), tmp_path).read_bytes() == BODY


def test_a_wrong_hash_leaves_no_file(server, tmp_path):
    server.body = BODY[::-1]
    with pytest.raises(ValueError, match=hashlib.md5(BODY).hexdigest()):
        archives.download(archive(server), tmp_path)
    assert names(tmp_path) == []


def test_the_users_own_file_of_that_name_is_left_alone(server, tmp_path):
    (tmp_path / "a.bin").write_bytes(b"mine")
    with pytest.raises(ValueError, match="a.bin is not the published archive .*: move it away"):
        archives.download(archive(server), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == b"mine" and not server.asked
    (tmp_path / "a.bin").write_bytes(BODY)  # placed by hand
    assert archives.download(archive(server), tmp_path).read_bytes() == BODY and not server.asked


def test_without_a_network_the_file_can_be_placed_by_hand(server, tmp_path):
    server.shutdown()
    server.server_close()
    with pytest.raises(ValueError) as error:
        archives.download(archive(server), tmp_path)
    text = str(error.value)
    assert "cannot be fetched" in text and str(tmp_path / "a.bin") in text and hashlib.md5(BODY).hexdigest() in text
    assert names(tmp_path) == []


def test_what_a_server_refuses_is_told(server, tmp_path):
    server.status = 404
    with pytest.raises(ValueError, match=r"cannot be fetched \(Not Found\)"):
        archives.download(archive(server), tmp_path)


def test_a_full_disk_is_not_taken_for_a_missing_network(server, tmp_path):
    with disk_full_after(5000), pytest.raises(OSError, match="a.bin.part") as error:
        archives.download(archive(server), tmp_path)
    assert error.value.errno == errno.EFBIG and "network" not in str(error.value)
    assert archives.download(archive(server), tmp_path).read_bytes() == BODY
    assert server.asked == [None, "bytes=5000-"]


def test_two_downloads_of_one_file_do_not_mix(server, tmp_path):
    with FileLock(tmp_path / ".a.bin.lock"), pytest.raises(ValueError, match="another process is fetching"):
        archives.download(archive(server), tmp_path)
    assert not server.asked


# --- unpacking


def tar(path, members, kind="w:gz", link=None):
    """An archive of (name, bytes); those without bytes are links or devices of a type."""
    with tarfile.open(path, kind) as pack:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if content is None:
                member.type, member.linkname = link, "/etc/passwd"
            else:
                member.size = len(content)
            pack.addfile(member, io.BytesIO(content))
    return path


def zipped(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as pack:
        for name, content in members:
            entry = zipfile.ZipInfo(name)
            if content is None:
                entry.external_attr, content = (stat.S_IFLNK | 0o777) << 16, b"/etc/passwd"
            pack.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return path


GOOD = [("set/a.bin", b"a" * 3000), ("set/deep/b.bin", b""), ("note.txt", b"hello")]


@pytest.mark.parametrize("kind", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
def test_archives_are_unpacked_and_read(tmp_path, kind):
    path = zipped(tmp_path / "a", GOOD) if kind == "zip" else tar(tmp_path / "a", GOOD, kind)
    made = archives.extract(path, tmp_path / "out")
    assert made == [tmp_path / "out" / "note.txt", tmp_path / "out" / "set"]
    found = {str(p.relative_to(tmp_path / "out")): p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert found == dict(GOOD) == archives.contents(path)


OUTSIDE = ["../a.bin", "set/../../a.bin", "/a.bin", "..\\a.bin", "C:\\a.bin", "\\a.bin", "set/.."]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("make", [tar, zipped])
def test_a_name_outside_the_folder_is_refused(tmp_path, make, name):
    path = make(tmp_path / "a", [*GOOD, (name, b"evil")])
    refused(tmp_path, path, "a path outside its folder: it is not unpacked")


def refused(tmp_path, path, words):
    """Both ways of opening an archive give that one error; nothing is left, inside the folder or out of it."""
    before = sorted(tmp_path.rglob("*"))
    for use in (lambda: archives.extract(path, tmp_path / "out"), lambda: archives.contents(path)):
        with pytest.raises(ValueError, match=words) as error:
            use()
        assert str(path) in str(error.value)
    assert sorted(set(tmp_path.rglob("*")) - set(before)) == [tmp_path / "out"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    refused(tmp_path, tar(tmp_path / "a", [*GOOD, ("set/c", None)], link=kind), "'set/c', a link or a device")


def test_links_in_a_zip_are_refused(tmp_path):
    refused(tmp_path, zipped(tmp_path / "a", [*GOOD, ("set/c", None)]), "'set/c', a link or a device")


@pytest.mark.parametrize("make", [tar, zipped])
def test_an_archive_that_unpacks_to_far_too_much_is_refused(tmp_path, monkeypatch, make):
    monkeypatch.setattr(archives, "SLACK", 100_000)
    monkeypatch.setattr(archives, "BLOCK", 10_000)
    path = make(tmp_path / "a", [*GOOD, ("big", bytes(1_000_000))])
    assert path.stat().st_size < 10_000
    refused(tmp_path, path, "unpacks to more than [0-9,]+ bytes")


def test_what_is_read_without_unpacking_fits_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MEMORY", 3000)
    path = tar(tmp_path / "a", GOOD)
    with pytest.raises(ValueError, match="unpacks to more than 3,000 bytes"):
        archives.contents(path)
    archives.extract(path, tmp_path / "out")


def test_an_archive_of_too_many_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MEMBERS", 2)
    refused(tmp_path, tar(tmp_path / "a", GOOD), "more than 2 files")


@pytest.mark.parametrize("kind", ["w:gz", "w:xz", "w:bz2", "zip"])
def test_a_truncated_or_damaged_archive_is_refused(tmp_path, kind):
    members = [("set/a.bin", os.urandom(5000)), ("set/b.bin", os.urandom(5000))]
    path = zipped(tmp_path / "a", members) if kind == "zip" else tar(tmp_path / "a", members, kind)
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    refused(tmp_path, path, "cannot be unpacked")
    shutil.rmtree(tmp_path / "out")
    path.write_bytes(raw[:3000] + bytes(b ^ 255 for b in raw[3000:3100]) + raw[3100:])
    refused(tmp_path, path, "cannot be unpacked")


def test_an_archive_that_goes_on_after_its_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "BLOCK", 1000)
    path = tar(tmp_path / "a", GOOD, "w")
    path.write_bytes(path.read_bytes() + bytes(100_000))
    refused(tmp_path, path, "it goes on after its end")


def test_what_is_no_archive_is_refused(tmp_path):
    for content in (b"", b"hello", b"<html>404</html>"):
        (tmp_path / "a").write_bytes(content)
        refused(tmp_path, tmp_path / "a", "it is no .tar or .zip archive")
        shutil.rmtree(tmp_path / "out")


def test_a_member_in_the_place_of_another_is_refused(tmp_path):
    for second in ("set/a.bin", "set/a.bin/inside", "set/a.bin/far/inside"):
        path = tar(tmp_path / "a", [*GOOD, (second, b"other")])
        with pytest.raises(ValueError, match="where another member is"):
            archives.extract(path, tmp_path / "out")
        assert names(tmp_path / "out") == []


def test_a_full_disk_leaves_nothing_unpacked_and_names_the_file(tmp_path):
    path = tar(tmp_path / "a", [*GOOD, ("set/c.bin", os.urandom(9000))])
    with disk_full_after(5000), pytest.raises(OSError, match="set/c.bin"):
        archives.extract(path, tmp_path / "out")
    assert names(tmp_path / "out") == []


@pytest.mark.parametrize("make", [tar, zipped])
def test_of_two_members_of_one_name_none_is_read(tmp_path, make):
    path = make(tmp_path / "a", [*GOOD, ("./set/a.bin", b"other")])
    refused(tmp_path, path, "holds 'set/a.bin' where another member is")


def test_files_that_are_there_are_not_overwritten(tmp_path):
    path, out = tar(tmp_path / "a", GOOD), tmp_path / "out"
    out.mkdir()
    (out / "set").mkdir()
    (out / "set" / "a.bin").write_bytes(b"mine")
    with pytest.raises(ValueError, match="set is there already, and a would overwrite it: move it away"):
        archives.extract(path, out)
    assert names(out) == ["set"] and (out / "set" / "a.bin").read_bytes() == b"mine"


def test_zips_in_a_zip_are_unpacked_where_that_is_asked_for(tmp_path):
    inner = zipped(tmp_path / "cat.zip", [("cat/1.bin", b"1")]).read_bytes()
    path = zipped(tmp_path / "a", [("cat.zip", inner), ("__MACOSX/x", b"?")])
    archives.extract(path, tmp_path / "plain")
    assert names(tmp_path / "plain") == ["cat.zip"]
    archives.extract(path, tmp_path / "nested", nested=True)
    assert names(tmp_path / "nested") == ["cat"] and (tmp_path / "nested" / "cat" / "1.bin").read_bytes() == b"1"
    evil = zipped(tmp_path / "dog.zip", [("../dog.bin", b"1")]).read_bytes()
    with pytest.raises(ValueError, match="a path outside its folder"):
        archives.extract(zipped(tmp_path / "b", [("dog.zip", evil)]), tmp_path / "evil", nested=True)
    assert names(tmp_path / "evil") == []


# --- the command


def test_get_fetches_unpacks_and_decodes(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SLT_DATA", str(tmp_path / "data"))
    tiny, folder = Tiny(monkeypatch), tmp_path / "data" / "cifar10"
    where = tiny.binary(tmp_path)
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as pack:
        pack.add(where, where.name)
    server.body = (tmp_path / "c.tar.gz").read_bytes()
    there = Archive("c.tar.gz", server.url, hashlib.md5(server.body).hexdigest(), (where.name,))
    tiny.register(archives=(there,))
    server.cut = 1000
    assert data.main(["get", "cifar10"]) == 1
    error = capsys.readouterr().err
    assert "the next call goes on from there" in error and names(folder) == ["c.tar.gz.part"]
    with pytest.raises(ValueError, match="data get cifar10"):
        data.check(["cifar10"])
    server.cut = None
    assert data.main(["get", "cifar10"]) == 0
    assert str(tmp_path / "data" / "arrays" / "cifar10") in capsys.readouterr().out
    assert len(server.asked) == 2 and names(folder) == ["c.tar.gz", where.name]
    data.check(["cifar10"])
    assert data.main(["get", "cifar10"]) == 0 and len(server.asked) == 2
    assert len(data.load_data("cifar10").train) == 30


def listed(info, folder):
    """A reader that has found its recordings."""
    return {s: data.Recordings(np.zeros(n, np.int64), (info.size,) * 2, s, iter) for s, n in info.counts.items()}


def test_get_goes_on_after_the_first_of_two_archives(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SLT_DATA", str(tmp_path))
    folder = tmp_path / "n-mnist"
    (folder / "Train").mkdir(parents=True)
    path = zipped(tmp_path / "t.zip", [("Test/0/1.bin", b"12345")])
    server.body = path.read_bytes()
    first = Archive("train.zip", "http://127.0.0.1:9/", "0" * 32, ("Train",))
    second = Archive("test.zip", server.url, hashlib.md5(server.body).hexdigest(), ("Test",))
    changes = {"archives": (first, second), "counts": {"train": 2, "val": 1, "test": 1}, "reader": listed}
    changed = dataclasses.replace(data.DATASETS["n-mnist"], **changes)
    monkeypatch.setitem(data.DATASETS, "n-mnist", changed)
    assert data.main(["get", "n-mnist"]) == 0, capsys.readouterr().err
    assert (folder / "Test" / "0" / "1.bin").read_bytes() == b"12345"


def test_get_does_not_go_round_in_circles(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SLT_DATA", str(tmp_path))
    where = Tiny(monkeypatch).binary(tmp_path / "cifar10")
    (where / "test_batch.bin").unlink()
    assert data.main(["get", "cifar10"]) == 1
    error = capsys.readouterr().err
    assert f"{where} is not whole: move away what is there" in error and "test_batch.bin is missing" in error


def test_get_does_not_name_itself_as_the_remedy_for_what_it_found(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SLT_DATA", str(tmp_path))
    where = Tiny(monkeypatch).binary(tmp_path / "cifar10") / "test_batch.bin"
    where.write_bytes(b"\xff" + where.read_bytes()[1:])
    for half in ("Train", "Test"):
        (tmp_path / "n-mnist" / half).mkdir(parents=True)
    for name, place, words in (
        ("cifar10", where.parent, "the label 255"),
        ("n-mnist", tmp_path / "n-mnist", "0 .bin recordings"),
    ):
        assert data.main(["get", name]) == 1
        error = capsys.readouterr().err
        assert f"error: {place} is not whole: move away what is there, and try again" in error and words in error


def test_get_says_that_a_package_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SLT_DATA", str(tmp_path))
    for name in data.info("cifar10-dvs").folders:
        (tmp_path / "cifar10-dvs" / name).mkdir(parents=True)
    changes = {"packages": ("no_such_package",), "counts": {"train": 2, "val": 1, "test": 1}, "reader": listed}
    monkeypatch.setitem(data.DATASETS, "cifar10-dvs", dataclasses.replace(data.DATASETS["cifar10-dvs"], **changes))
    assert data.main(["get", "cifar10-dvs"]) == 1
    error = capsys.readouterr().err
    assert f"cifar10-dvs is in {tmp_path / 'cifar10-dvs'}, but not ready:" in error and "pip install" in error


def test_get_says_what_cannot_be_fetched(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SLT_DATA", str(tmp_path))
    assert data.main(["get", "cifar10-jpeg"]) == 1
    assert "cifar10-jpeg cannot be fetched: put train/ and test/ into" in capsys.readouterr().err
    assert data.main(["get", "fashion"]) == 0
    assert "fashion is ready" in capsys.readouterr().out


def test_published_archives_are_pinned():
    for name, found in data.DATASETS.items():
        assert all(len(a.md5) == 32 and a.url.startswith("https://") and a.holds for a in found.archives), name
    fetched = {name for name, found in data.DATASETS.items() if found.archives}
    assert fetched == {"cifar10", "cifar100", "n-mnist", "dvs128-gesture", "cifar10-dvs"}
