"""What programs do with files, in every mode that writes, with the page cache and without it."""

from __future__ import annotations

import errno
import mmap
import os
import stat
from pathlib import Path

import pytest

from tests.support.directories import names_by_every_way
from tests.support.volumes import MountedVolume

MIB = 1 << 20


def failure(call: object, *arguments: object, **keywords: object) -> int | None:
    """The errno that a call ends with."""
    assert callable(call)
    try:
        call(*arguments, **keywords)
    except OSError as error:
        return error.errno
    return None


@pytest.fixture
def uses_pages(request: pytest.FixtureRequest) -> bool:
    return "odirect_io" not in request.node.name


# --- files ---


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 100_000, MIB, 9 * MIB + 1])
def test_what_is_written_is_read_back_and_is_the_object(
    folder: Path, writable_volume: MountedVolume, size: int
) -> None:
    data = os.urandom(size)
    path = folder / f"file-{size}"

    path.write_bytes(data)

    assert path.stat().st_size == size
    assert path.read_bytes() == data
    assert path.stat().st_blocks == (size + 511) // 512
    assert writable_volume.get(f"{folder.name}/{path.name}") == data


def test_small_pieces_in_order_make_one_file(folder: Path) -> None:
    pieces = [os.urandom(n % 997 + 1) for n in range(300)]
    with (folder / "pieces").open("wb", buffering=0) as file:
        for piece in pieces:
            file.write(piece)

    assert (folder / "pieces").read_bytes() == b"".join(pieces)


def test_appending_continues_the_file(folder: Path) -> None:
    path = folder / "log"
    path.write_bytes(b"first\n")
    with path.open("ab") as file:
        file.write(b"second\n")
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, b"third\n")
    os.close(descriptor)

    assert path.read_bytes() == b"first\nsecond\nthird\n"


def test_overwriting_replaces_the_whole_file(folder: Path) -> None:
    path = folder / "file"
    path.write_bytes(b"a" * 300_000)
    path.write_bytes(b"short")

    assert path.read_bytes() == b"short"
    assert path.stat().st_size == 5


def test_an_open_file_has_the_size_written_so_far(folder: Path) -> None:
    with (folder / "growing").open("wb", buffering=0) as file:
        file.write(b"x" * 1000)

        assert os.fstat(file.fileno()).st_size == 1000
        assert (folder / "growing").stat().st_size == 1000
        assert "growing" in os.listdir(folder)


def test_o_excl_refuses_an_existing_file(folder: Path) -> None:
    (folder / "there").write_bytes(b"")

    assert failure(os.open, folder / "there", os.O_CREAT | os.O_EXCL | os.O_WRONLY) == errno.EEXIST
    with (folder / "new").open("xb") as file:
        file.write(b"1")
    assert (folder / "new").read_bytes() == b"1"


def test_truncating_to_nothing_works_with_and_without_a_descriptor(folder: Path) -> None:
    path = folder / "file"
    path.write_bytes(b"abc")
    os.truncate(path, 0)
    assert path.read_bytes() == b""
    path.write_bytes(b"abc")
    with path.open("r+b") as file:
        file.truncate(0)
    assert path.read_bytes() == b""


def test_truncating_to_the_same_size_is_nothing_and_to_another_size_is_refused(folder: Path) -> None:
    path = folder / "file"
    path.write_bytes(b"abc")

    os.truncate(path, 3)

    assert failure(os.truncate, path, 2) == errno.EOPNOTSUPP
    assert path.read_bytes() == b"abc"


def test_a_file_can_be_given_its_size_before_it_is_written_and_renamed_before_it_is_closed(folder: Path) -> None:
    data = os.urandom(9 * MIB + 7)
    descriptor = os.open(folder / ".tmp", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)

    os.ftruncate(descriptor, len(data))
    assert os.fstat(descriptor).st_size == len(data)
    for start in range(0, len(data), MIB):
        assert os.write(descriptor, data[start : start + MIB]) == len(data[start : start + MIB])
    (folder / ".tmp").rename(folder / "model")
    os.close(descriptor)

    assert (folder / "model").read_bytes() == data


def test_a_write_in_the_middle_is_refused_and_the_file_is_as_it_was(folder: Path) -> None:
    path = folder / "file"
    path.write_bytes(b"abcdef")
    descriptor = os.open(path, os.O_WRONLY)
    try:
        refused = failure(os.pwrite, descriptor, b"X", 2)
    finally:
        failure(os.close, descriptor)

    assert refused in {errno.EINVAL, errno.EOPNOTSUPP}
    assert path.read_bytes() == b"abcdef"


def test_a_duplicated_descriptor_can_be_closed_and_writing_goes_on(folder: Path) -> None:
    descriptor = os.open(folder / "file", os.O_CREAT | os.O_WRONLY)
    os.write(descriptor, b"before ")
    os.close(os.dup(descriptor))
    os.write(descriptor, b"after")
    os.close(descriptor)

    assert (folder / "file").read_bytes() == b"before after"


def test_fsync_makes_the_object_durable_and_writing_goes_on(folder: Path, writable_volume: MountedVolume) -> None:
    with (folder / "file").open("wb", buffering=0) as file:
        file.write(b"one")
        os.fsync(file.fileno())
        durable = writable_volume.get(f"{folder.name}/file")
        file.write(b"two")

    assert durable == b"one"
    assert (folder / "file").read_bytes() == b"onetwo"


@pytest.mark.parametrize("early", [True, False])
def test_what_is_written_can_be_read_if_somebody_opens_it_before_a_part_is_sent(
    folder: Path, writable_volume: MountedVolume, early: bool
) -> None:
    data = b"data" + os.urandom(30 * MIB)
    with (folder / "file").open("wb", buffering=0) as file:
        file.write(data[:4])
        reader = (folder / "file").open("rb", buffering=0) if early else None
        for offset in range(4, len(data), MIB):
            file.write(data[offset : offset + MIB])
        if reader is None or writable_volume.session == "pyfuse3":
            assert failure((folder / "file").read_bytes) == errno.EBUSY
        else:
            assert reader.readall() == (folder / "file").read_bytes() == data
        if reader is not None:
            reader.close()

    assert (folder / "file").read_bytes() == data


def test_touch_makes_an_empty_file_and_sets_times(folder: Path) -> None:
    path = folder / "touched"
    path.touch()
    os.utime(path, ns=(1_000_000_000, 1_600_000_000_123_456_789))

    assert path.stat().st_size == 0
    assert path.stat().st_mtime_ns == 1_600_000_000_123_456_789


def test_chmod_and_chown_do_no_harm(folder: Path) -> None:
    path = folder / "file"
    path.write_bytes(b"x")

    path.chmod(0o644)
    os.chown(path, 0, 0)

    assert path.read_bytes() == b"x"


def test_a_removed_file_is_gone_and_a_removed_writer_does_not_bring_it_back(folder: Path) -> None:
    path = folder / "file"
    path.write_bytes(b"x")
    path.unlink()
    assert failure(path.stat) == errno.ENOENT
    file = (folder / "half").open("wb", buffering=0)
    file.write(b"half")
    (folder / "half").unlink()
    file.close()

    assert os.listdir(folder) == []


@pytest.mark.parametrize("made", ["new", "before"])
def test_a_file_that_lost_its_name_is_written_to_anywhere_and_read_back(
    folder: Path, writable_volume: MountedVolume, made: str, uses_pages: bool
) -> None:
    path = folder / "file"
    if made == "before":
        path.touch()
    descriptor = os.open(path, os.O_RDWR | (os.O_CREAT | os.O_EXCL if made == "new" else 0))
    os.write(descriptor, b"Hello,")
    path.unlink()
    os.pwrite(descriptor, b"World!" * 10_000, 10)
    os.pwrite(descriptor, b"_", 6)
    found = os.fstat(descriptor)
    local = b"Hello,_\0\0\0" + b"World!" * 10_000

    assert (found.st_nlink, found.st_size) == (0, len(local))
    # pyfuse3 does not say what a read is for
    if writable_volume.session == "pyfuse3" and not (uses_pages and made == "before"):
        assert failure(os.pread, descriptor, 1, 0) == errno.EBUSY
    else:
        assert os.pread(descriptor, 1 << 20, 0) == local
        os.ftruncate(descriptor, 20_000)
        os.ftruncate(descriptor, 20_010)
        assert os.pread(descriptor, 1 << 20, 0) == local[:20_000] + bytes(10)
    os.close(descriptor)
    assert os.listdir(folder) == []


def test_who_opened_it_for_both_reads_back_what_he_writes(
    folder: Path, writable_volume: MountedVolume, uses_pages: bool
) -> None:
    path, data = folder / "file", os.urandom(30_000)
    path.write_bytes(data[:5000])
    with path.open("r+b", buffering=0) as file:
        assert file.read() == data[:5000]
        for end in range(6000, 30_001, 1500):
            file.seek(0, os.SEEK_END)
            file.write(data[file.tell() : end])
            if writable_volume.session == "pyfuse3" and not uses_pages:
                assert failure(os.pread, file.fileno(), 1, 0) == errno.EBUSY
            else:
                assert os.pread(file.fileno(), 1 << 20, 0) == data[:end]
            if uses_pages:
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
                    assert view[:] == data[:end]
    assert path.read_bytes() == data


# --- reading ---


def test_mmap_sees_the_bytes(folder: Path, writable_volume: MountedVolume) -> None:
    data = os.urandom(300_000)
    (folder / "file").write_bytes(data)
    with (folder / "file").open("rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ) as view:
        assert view[:] == data
        assert view[123_456:123_466] == data[123_456:123_466]


@pytest.mark.parametrize("read_before", [False, True], ids=["fresh", "read before"])
def test_what_is_stored_in_a_shared_mapping_is_refused_and_seen_by_nobody(folder: Path, read_before: bool) -> None:
    (folder / "file").write_bytes(b"0" * 8192)
    for _ in range(2 * read_before):  # from the second time on, the session may open it without asking anybody
        assert (folder / "file").read_bytes() == b"0" * 8192
    seen: list[bytes] = []

    def store() -> None:
        with (folder / "file").open("r+b") as file, mmap.mmap(file.fileno(), 0) as view:
            view[:5] = b"12345"
            try:
                view.flush()
            finally:
                seen.append((folder / "file").read_bytes())

    # -odirect_io has no shared mappings at all
    assert failure(store) in (errno.EINVAL, errno.ENODEV)
    assert set(seen) <= {b"0" * 8192}
    assert (folder / "file").read_bytes() == b"0" * 8192


def test_sendfile_and_splice_move_the_bytes(folder: Path, tmp_path: Path) -> None:
    data = os.urandom(200_000)
    (folder / "file").write_bytes(data)
    with (folder / "file").open("rb") as source, (tmp_path / "copy").open("wb") as target:
        sent = 0
        while count := os.sendfile(target.fileno(), source.fileno(), sent, len(data)):
            sent += count
    assert (tmp_path / "copy").read_bytes() == data

    reader, writer = os.pipe()
    with (folder / "file").open("rb") as source:
        moved = os.splice(source.fileno(), writer, 4096)
    assert os.read(reader, moved) == data[:moved]
    os.close(reader)
    os.close(writer)


def test_seeking_anywhere_reads_the_right_bytes(folder: Path) -> None:
    data = os.urandom(3 * MIB)
    (folder / "file").write_bytes(data)
    with (folder / "file").open("rb", buffering=0) as file:
        for offset in (2 * MIB, 0, MIB - 1, 3 * MIB - 5, 17):
            file.seek(offset)
            assert file.read(10) == data[offset : offset + 10]
        assert os.pread(file.fileno(), 10, len(data)) == b""
        assert os.pread(file.fileno(), 10, len(data) + 5) == b""


# --- directories ---


def test_directories_are_made_listed_and_removed(folder: Path) -> None:
    (folder / "a/b").mkdir(parents=True)
    (folder / "a/b/file").write_bytes(b"x")

    assert os.listdir(folder / "a") == ["b"]
    assert failure((folder / "a").rmdir) == errno.ENOTEMPTY
    (folder / "a/b/file").unlink()
    (folder / "a/b").rmdir()
    (folder / "a").rmdir()
    assert os.listdir(folder) == []


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda at: (at / "file").mkdir(), errno.EEXIST),
        (lambda at: (at / "dir").mkdir(), errno.EEXIST),
        (lambda at: (at / "file").rmdir(), errno.ENOTDIR),
        (lambda at: (at / "dir").unlink(), errno.EISDIR),
        (lambda at: (at / "nope").unlink(), errno.ENOENT),
        (lambda at: (at / "nope").rmdir(), errno.ENOENT),
        (lambda at: (at / "file/below").stat(), errno.ENOTDIR),
        (lambda at: (at / "nope/below").write_bytes(b""), errno.ENOENT),
        (lambda at: os.open(at / "dir", os.O_WRONLY), errno.EISDIR),
        (lambda at: os.listdir(at / "file"), errno.ENOTDIR),
        (lambda at: (at / ("n" * 256)).write_bytes(b""), errno.ENAMETOOLONG),
        (lambda at: (at / "file").rename(at / "dir"), errno.EISDIR),
        (lambda at: (at / "dir").rename(at / "file"), errno.ENOTDIR),
        (lambda at: (at / "dir").rename(at / "dir/inside"), errno.EINVAL),
        (lambda at: (at / "empty").rename(at / "dir"), errno.ENOTEMPTY),
        (lambda at: (at / "nope").rename(at / "other"), errno.ENOENT),
        (lambda at: os.link(at / "file", at / "link"), errno.EPERM),
    ],
)
def test_refusals_have_the_errno_posix_gives_them(folder: Path, call: object, code: int) -> None:
    (folder / "file").write_bytes(b"x")
    (folder / "dir").mkdir()
    (folder / "dir/child").write_bytes(b"x")
    (folder / "empty").mkdir()

    assert failure(call, folder) == code


def test_a_large_directory_is_listed_whole_and_can_be_rewound(folder: Path, writable_volume: MountedVolume) -> None:
    count = 2500
    key = f"{writable_volume.prefix}{folder.name}/many/f{{n:05d}}"
    writable_volume.emulator.seed(key, b"abc", count=count)
    expected = {f"f{number:05d}" for number in range(count)}

    with os.scandir(folder / "many") as entries:
        found = {entry.name: entry.stat().st_size for entry in entries}
    first, rest, again, whole = names_by_every_way(folder / "many", 700)

    assert found == dict.fromkeys(expected, 3)
    assert rest == again
    assert whole == first + rest
    assert {name.decode() for name in whole} == expected | {".", ".."}


def test_a_directory_can_be_emptied_while_it_is_read(folder: Path) -> None:
    for number in range(300):
        (folder / f"f{number}").touch()

    with os.scandir(folder) as entries:
        for entry in entries:
            os.unlink(entry.path)

    assert os.listdir(folder) == []


# --- renames ---


def test_renames_move_files_and_directories(folder: Path) -> None:
    (folder / "dir").mkdir()
    (folder / "dir/inner").mkdir()
    (folder / "dir/inner/file").write_bytes(b"content")
    (folder / "dir").rename(folder / "moved")
    (folder / "moved/inner/file").rename(folder / "file")

    assert (folder / "file").read_bytes() == b"content"
    assert sorted(os.listdir(folder)) == ["file", "moved"]
    assert os.listdir(folder / "moved/inner") == []


def test_a_rename_replaces_its_target(folder: Path) -> None:
    (folder / "new").write_bytes(b"new")
    (folder / "old").write_bytes(b"old content")

    (folder / "new").replace(folder / "old")

    assert (folder / "old").read_bytes() == b"new"
    assert os.listdir(folder) == ["old"]


def test_a_file_renamed_while_it_is_written_appears_under_its_new_name(folder: Path) -> None:
    with (folder / "tmp").open("wb", buffering=0) as file:
        file.write(b"one ")
        (folder / "tmp").rename(folder / "final")
        file.write(b"two")

    assert (folder / "final").read_bytes() == b"one two"
    assert os.listdir(folder) == ["final"]


def test_a_reader_goes_on_through_a_rename(folder: Path) -> None:
    data = os.urandom(MIB)
    (folder / "a").write_bytes(data)
    with (folder / "a").open("rb", buffering=0) as file:
        head = file.read(1000)
        (folder / "a").rename(folder / "b")
        rest = b"".join(iter(lambda: file.read(100_000), b""))

    assert head + rest == data


# --- attributes of other kinds ---


def test_extended_attributes_show_the_object(folder: Path) -> None:
    (folder / "file").write_bytes(b"x")

    assert os.getxattr(folder / "file", "user.oss.etag")
    assert "user.oss.etag" in os.listxattr(folder / "file")
    assert failure(os.getxattr, folder / "file", "user.nope") == errno.ENODATA
    os.setxattr(folder / "file", "user.colour", b"blue")
    assert os.getxattr(folder / "file", "user.colour") == b"blue"
    os.removexattr(folder / "file", "user.colour")
    assert failure(os.getxattr, folder / "file", "user.colour") == errno.ENODATA


def test_extended_attributes_are_made_or_replaced_as_asked(folder: Path) -> None:
    (folder / "file").write_bytes(b"x")

    assert failure(os.setxattr, folder / "file", "user.v", b"1", os.XATTR_REPLACE) == errno.ENODATA
    os.setxattr(folder / "file", "user.v", b"2", os.XATTR_CREATE)
    assert failure(os.setxattr, folder / "file", "user.v", b"3", os.XATTR_CREATE) == errno.EEXIST
    assert os.getxattr(folder / "file", "user.v") == b"2"
    os.setxattr(folder / "file", "user.v", b"4", os.XATTR_REPLACE)
    assert os.getxattr(folder / "file", "user.v") == b"4"


def test_statfs_shows_room(folder: Path) -> None:
    room = os.statvfs(folder)

    assert room.f_bavail * room.f_frsize > 1 << 40
    assert room.f_namemax == 255


def test_kinds_and_owners(folder: Path) -> None:
    (folder / "file").write_bytes(b"x")
    (folder / "dir").mkdir()

    file, directory = (folder / "file").stat(), (folder / "dir").stat()

    assert (stat.filemode(file.st_mode), stat.filemode(directory.st_mode)) == ("-rw-r--r--", "drwxr-xr-x")
    assert (file.st_uid, file.st_gid, directory.st_uid) == (0, 0, 0)


def test_symbolic_links_follow_the_mode(folder: Path, writable_volume: MountedVolume) -> None:
    (folder / "file").write_bytes(b"through the link")
    links = "custom" in writable_volume.served.log_file.parent.joinpath("volume.json").read_text()

    refused = failure(os.symlink, "file", folder / "link")

    if links:
        assert refused is None
        assert (folder / "link").is_symlink()
        assert os.readlink(folder / "link") == "file"
        assert (folder / "link").read_bytes() == b"through the link"
    else:
        assert refused in {errno.EPERM, errno.EOPNOTSUPP}
