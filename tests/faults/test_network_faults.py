"""Programs use a volume in every manner while OSS fails, lies and loses answers: every byte is right or an error is
told, no operation waits for ever, and nothing half is left at OSS."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from tests.support.emulator import RunningEmulator
from tests.support.journal import Expected, content
from tests.support.node import Node
from tests.support.published_volume import PublishedVolume, program, published_volume, until

MANNERS = ("overwrite", "append", "save", "move_directory", "read")
OPTIONS = {
    "fs__oss__retry__count": "5",
    "fs__oss__retry__interval__millisecond": "10",
    "fs__oss__timeout__millisecond": "2000",
    "fs__oss__connection__timeout__millisecond": "1000",
    "fs__oss__blocklet__size__mb": "1",
    "fs__jindo__args": "-oattr_timeout=0 -oentry_timeout=0 -onegative_timeout=0 -odirect_io",
}
APPEND = {**OPTIONS, "fs__oss__append__enable": "true", "fs__oss__write__buffer__size": "262144"}
TOLD = {"EIO", "EHOSTUNREACH", "ETIMEDOUT", "ESTALE"}
# an empty object made exclusively (mkdir, O_EXCL) whose answer was lost, or was not believed, cannot be told from
# another client's
TOLD_AFTER_A_LOSS = TOLD | {"EEXIST"}
CHANGES = "PutObject,UploadPart,CompleteMultipartUpload,AppendObject,CopyObject,DeleteObject,DeleteMultipleObjects"


class Crowd:
    """One program for each manner, all at once on one volume, each in a directory of its own."""

    def __init__(self, volume: PublishedVolume, manners: Iterable[str]) -> None:
        self.volume = volume
        self.expected = {manner: Expected() for manner in manners}
        for manner in manners:
            if manner == "read":
                names = [f"whole-{size}" for size in (0, 1, 1000, 70_000, 300_000, 900_000, 1 << 20)]
                for name in [*names, "ranges-3000000", "ranges-5000000"]:
                    volume.bucket.put(f"read/{name}", content([(name, int(name.split("-")[1]))]))
            else:
                volume.bucket.put(f"{manner}/", b"")

    def work(self, rounds: int, seed: str, *, go_on: bool = True) -> None:
        """Returns when every program has ended; one that says nothing for a minute fails the test."""
        failures: list[BaseException] = []

        def follow(manner: str, expected: Expected) -> None:
            try:
                flags = ["--go-on"] if go_on else []
                directory = str(self.volume.path / manner)
                with program("writing_program", manner, directory, f"{manner}-{seed}", str(rounds), *flags) as running:
                    for said in running.lines():
                        expected.take(said)
                    assert running.wait() == 0
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=follow, args=each) for each in self.expected.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]

    def errors(self) -> set[str]:
        return {error for expected in self.expected.values() for error in expected.errors}

    def check(self) -> None:
        """Every object is what it may be, and nothing unfinished stays at OSS."""
        wrong = []
        for manner, expected in self.expected.items():
            wrong += expected.violations(lambda name, manner=manner: self.volume.bucket.get(f"{manner}/{name}"))
        assert wrong == []
        until(lambda: self.volume.bucket.kept_uploads() == [], timeout=60)


FAULTS: dict[str, list[dict[str, Any]]] = {
    "some-503": [{"status": 503, "probability": 0.2}],
    "many-500": [{"status": 500, "probability": 0.6}],
    "resets": [
        {"operation": "GetObject", "reset_after": 500, "probability": 0.3},
        {"operation": "PutObject,UploadPart", "reset_upload_after": 50, "probability": 0.3},
    ],
    "truncated": [{"operation": "GetObject", "truncate_after": 700, "probability": 0.3}],
    "lost-answers": [{"operation": CHANGES, "drop_answer": True, "probability": 0.3}],
    "wrong-checksums": [{"operation": "PutObject,UploadPart,GetObject", "wrong_crc64": True, "probability": 0.2}],
    # a range has no checksum: only bodies that are fetched whole can be told to be wrong
    "corrupt": [{"operation": "GetObject", "key": "*/whole-*", "corrupt_body": True, "probability": 0.5}],
    "everything": [
        {"status": 503, "probability": 0.05},
        {"operation": "GetObject", "reset_after": 100_000, "probability": 0.05},
        {"operation": "PutObject,UploadPart", "reset_upload_after": 5000, "probability": 0.05},
        {"operation": CHANGES, "drop_answer": True, "probability": 0.05},
        {"latency": 0.05, "probability": 0.05},
        {"blackhole": True, "probability": 0.002},
    ],
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS.keys())
def test_every_byte_is_right_or_an_error_is_told(
    node: Node, emulator: RunningEmulator, faults: list[dict[str, Any]]
) -> None:
    with published_volume(node, emulator, mode="custom", **OPTIONS) as volume:
        crowd = Crowd(volume, MANNERS)
        for number, fault in enumerate(faults):
            emulator.fault(**fault, seed=number)
        crowd.work(8, "faulty")
        assert any(rule["struck"] for rule in emulator.admin("GET", "/faults"))
        emulator.clear_faults()
        loses_answers = any("drop_answer" in fault or "wrong_crc64" in fault for fault in faults)
        assert crowd.errors() <= (TOLD_AFTER_A_LOSS if loses_answers else TOLD)
        crowd.check()
        before = {manner: len(expected.errors) for manner, expected in crowd.expected.items()}
        crowd.work(2, "afterwards")
        assert before == {manner: len(expected.errors) for manner, expected in crowd.expected.items()}
        crowd.check()


@pytest.mark.parametrize("faults", [FAULTS["some-503"], FAULTS["lost-answers"], FAULTS["many-500"]])
def test_in_append_mode_too(node: Node, emulator: RunningEmulator, faults: list[dict[str, Any]]) -> None:
    with published_volume(node, emulator, mode="custom", **APPEND) as volume:
        crowd = Crowd(volume, ["grow"])
        for fault in faults:
            emulator.fault(**fault)
        crowd.work(12, "faulty")
        emulator.clear_faults()
        assert crowd.errors() <= TOLD
        crowd.check()
        crowd.work(3, "afterwards", go_on=False)
        crowd.check()


def test_a_silent_server_is_told_within_the_deadline_and_all_is_well_afterwards(
    node: Node, emulator: RunningEmulator
) -> None:
    options = {**OPTIONS, "fs__oss__retry__count": "1"}
    with published_volume(node, emulator, mode="custom", **options) as volume:
        crowd = Crowd(volume, MANNERS)
        crowd.work(1, "before", go_on=False)
        emulator.fault(operation="*", blackhole=True, skip=20)
        crowd.work(1000, "silent", go_on=False)
        assert crowd.errors() == {"ETIMEDOUT"}
        emulator.clear_faults()
        crowd.check()
        for expected in crowd.expected.values():
            expected.errors.clear()
        crowd.work(2, "after", go_on=False)
        assert crowd.errors() == set()
        crowd.check()


def test_a_volume_whose_server_is_silent_is_taken_away_in_bounded_time(node: Node, emulator: RunningEmulator) -> None:
    with published_volume(node, emulator, mode="consistent", fs__oss__blocklet__size__mb="1") as volume:
        expected = Expected()
        with program("writing_program", "overwrite", str(volume.path), "silent", "1000") as writing:
            for _ in range(30):
                expected.take(writing.line() or "")
            emulator.fault(operation="*", blackhole=True)
            unpublish = threading.Thread(target=volume.unpublish, daemon=True)
            unpublish.start()
            unpublish.join(30)
            assert not unpublish.is_alive()
            for said in writing.lines():
                expected.take(said)
            assert writing.wait() == 0
        assert volume.remains() == []
        emulator.clear_faults()
        assert expected.violations(volume.bucket.get) == []


def test_what_a_failed_write_left_at_oss_is_removed_when_oss_answers_again(
    node: Node, emulator: RunningEmulator
) -> None:
    with published_volume(node, emulator, mode="custom", **OPTIONS) as volume:
        emulator.fault(operation="UploadPart", status=403, code="AccessDenied")
        emulator.fault(operation="AbortMultipartUpload", status=403, code="AccessDenied")
        with pytest.raises(PermissionError), (volume.path / "big").open("wb") as file:
            file.write(bytes(4 << 20))
        assert volume.bucket.uploads() == ["data/big"]
        emulator.clear_faults()
        until(lambda: volume.bucket.uploads() == [])
        assert volume.bucket.names() == set()


def test_an_expired_token_is_told_and_a_new_one_needs_no_remount(node: Node, emulator: RunningEmulator) -> None:
    with published_volume(node, emulator, mode="custom", **OPTIONS) as volume:
        lasting = volume.request
        volume.request = replace(lasting, credentials=emulator.issue_token().pairs())
        volume.unpublish()
        volume.publish()
        pid = volume.sidecar
        crowd = Crowd(volume, MANNERS)
        crowd.work(2, "valid", go_on=False)
        assert crowd.errors() == set()
        emulator.expire_tokens()
        crowd.work(1, "expired", go_on=False)
        assert crowd.errors() == {"EACCES"}
        crowd.check()
        volume.request = replace(lasting, credentials=emulator.issue_token().pairs())
        volume.publish()
        with (volume.path / "across").open("wb", buffering=0) as file:
            file.write(b"begun with one token, ")
            emulator.expire_tokens()
            with pytest.raises(PermissionError):
                os.listdir(volume.path)
            volume.request = replace(lasting, credentials=emulator.issue_token().pairs())
            volume.publish()
            file.write(b"finished with another")
        assert volume.bucket.get("across") == b"begun with one token, finished with another"
        for expected in crowd.expected.values():
            expected.errors.clear()
        crowd.work(2, "renewed", go_on=False)
        assert crowd.errors() == set()
        crowd.check()
        assert volume.sidecar == pid
