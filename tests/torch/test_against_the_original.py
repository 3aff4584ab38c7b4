"""The same cases with osstorchconnector 1.2.3 and with ours: keys, sizes, labels, order, bytes and errors are the same,
except where the original is wrong; each such place has a test with its name below."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.torch.conftest import Ground
from tests.torch.connectors import DIED, ORIGINAL, OURS, Connector, Raised

pytestmark = pytest.mark.timeout(600)  # several processes that load torch, beside the tests of three clusters
COUNT = 30
UNKNOWN_PREFIX = "nothing/"


@pytest.fixture(scope="module")
def connectors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Connector]]:
    directory = tmp_path_factory.mktemp("connectors")
    made = {name: Connector(name, directory / "hosts", directory / f"{name}.log") for name in (OURS, ORIGINAL)}
    yield made
    for connector in made.values():
        connector.end()


@pytest.fixture
def ours(connectors: dict[str, Connector]) -> Connector:
    return connectors[OURS]


@pytest.fixture
def original(connectors: dict[str, Connector]) -> Connector:
    return connectors[ORIGINAL]


def content(number: int) -> bytes:
    return bytes([number]) * (number * 1000 + 1)


def key(number: int) -> str:
    return f"data/{'even' if number % 2 == 0 else 'odd'}/{number:03}.bin"


@pytest.fixture
def objects(ground: Ground) -> Ground:
    """Objects of different sizes below `data/`, some with names that need encoding, and others beside them."""
    for number in range(COUNT):
        ground.emulator.seed(key(number), content(number))
    ground.emulator.seed("data/a name & more/圖像 +.bin", b"named")
    ground.emulator.seed("database", b"not below")
    return ground


@pytest.fixture
def manifest(objects: Ground, tmp_path: Path) -> str:
    path = tmp_path / "manifest"
    path.write_text("".join(f"{key(number)}\tlabel {number}\n" for number in reversed(range(COUNT))))
    return str(path)


def sources(ground: Ground, manifest: str) -> dict[str, dict[str, Any]]:
    """What `source` needs, by its name."""
    return {
        "prefix": {"uri": ground.uri("data/")},
        "objects": {"uris": [ground.uri(key(number)) for number in (5, 3, 9, 3, 0)]},
        "manifest": {"path": manifest, "base": ground.uri()},
    }


# --- what is the same ---


@pytest.mark.parametrize("source", ["prefix", "objects", "manifest"])
def test_a_map_data_set_has_the_same_items_in_the_same_order(
    ours: Connector, original: Connector, objects: Ground, manifest: str, source: str
) -> None:
    given = {"kind": "map", "source": source, **sources(objects, manifest)[source]}

    found, expected = (connector.ask("items", objects, **given) for connector in (ours, original))

    assert found == expected
    assert len(found) == {"prefix": COUNT + 1, "objects": 5, "manifest": COUNT}[source]


@pytest.mark.parametrize("source", ["prefix", "objects", "manifest"])
@pytest.mark.parametrize("workers", [0, 2])
def test_an_iterable_data_set_has_the_same_items_and_ours_has_them_in_order(
    ours: Connector, original: Connector, objects: Ground, manifest: str, source: str, workers: int
) -> None:
    given = {"source": source, **sources(objects, manifest)[source]}

    found, expected = (
        [
            item
            for batch in connector.ask("loader", objects, kind="iterable", workers=workers, **given)
            for item in batch
        ]
        for connector in (ours, original)
    )

    assert sorted(found) == sorted(expected)
    if not workers:
        assert found == ours.ask("items", objects, kind="map", **given)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_the_same_batches(ours: Connector, original: Connector, objects: Ground, workers: int) -> None:
    given = {"kind": "map", "source": "prefix", "uri": objects.uri("data/"), "workers": workers}

    assert ours.ask("loader", objects, **given) == original.ask("loader", objects, **given)


def test_a_batch_keeps_the_order_that_was_asked_for(ours: Connector, original: Connector, objects: Ground) -> None:
    given = {"source": "prefix", "uri": objects.uri("data/"), "numbers": [7, 0, 30, 7, 12]}

    found = ours.ask("batch", objects, **given)

    assert found == original.ask("batch", objects, **given)
    assert found[1][0] == f"/{objects.emulator.bucket}/data/a name & more/圖像 +.bin"


def test_a_listing_of_several_pages_is_whole(ours: Connector, original: Connector, ground: Ground) -> None:
    ground.emulator.seed("many/{n:05d}", b"x", count=2500)
    given = {"source": "prefix", "uri": ground.uri("many/"), "numbers": [0, 999, 1000, 1001, 2499]}

    found = ours.ask("batch", ground, **given)

    assert found == original.ask("batch", ground, **given)
    assert found[-1][0] == f"/{ground.emulator.bucket}/many/02499"


def test_a_prefix_without_objects_is_an_empty_data_set(ours: Connector, original: Connector, objects: Ground) -> None:
    given = {"kind": "map", "source": "prefix", "uri": objects.uri(UNKNOWN_PREFIX)}

    assert (ours.ask("items", objects, **given), original.ask("items", objects, **given)) == ([], [])


def test_the_parser_for_imagenet_takes_keys_with_and_without_labels(
    ours: Connector, original: Connector, objects: Ground, tmp_path: Path
) -> None:
    path = tmp_path / "manifest"
    path.write_text(f"{key(1)}\tcat\tignored\n{key(2)}\n")
    given = {"source": "manifest", "path": str(path), "base": objects.uri(), "parser": "imagenet"}

    found = ours.ask("items", objects, kind="map", **given)

    assert found == original.ask("items", objects, kind="map", **given)
    assert [item[2] for item in found] == ["cat", ""]


def test_a_manifest_may_lie_in_the_bucket(ours: Connector, original: Connector, objects: Ground) -> None:
    objects.emulator.seed("manifest", f"{key(4)}\tx\n{key(2)}\ty\n")
    given = {"kind": "map", "source": "manifest", "path": objects.uri("manifest"), "base": objects.uri()}

    found = ours.ask("items", objects, **given)

    assert found == original.ask("items", objects, **given)
    assert len(found) == 2


def test_an_item_is_a_file(ours: Connector, original: Connector, ground: Ground) -> None:
    ground.emulator.seed("ten", b"0123456789")

    found = ours.ask("as_a_file", ground, uris=[ground.uri("ten")])

    assert found == original.ask("as_a_file", ground, uris=[ground.uri("ten")])
    assert found == ["012", 3, 1, 4, "1234", 8, "89", "", 0, 2, "23"]


@pytest.mark.parametrize("kind", ["map", "iterable"])
def test_an_archive_of_the_original_is_read(ours: Connector, original: Connector, objects: Ground, kind: str) -> None:
    archive = {"tar": objects.uri("shard.tar"), "index": objects.uri("shard.index")}
    assert original.ask("index_archive", objects, uri=objects.uri("data/odd/"), **archive) is None

    found, expected = (
        connector.ask("items", objects, kind=kind, source="tar", **archive) for connector in (ours, original)
    )

    assert sorted(found) == sorted(expected)
    assert len(found) == COUNT // 2


@pytest.mark.parametrize("writer", [OURS, ORIGINAL])
@pytest.mark.parametrize("reader", [OURS, ORIGINAL])
def test_what_one_saves_the_other_loads(
    connectors: dict[str, Connector], ground: Ground, writer: str, reader: str
) -> None:
    uri = ground.uri("models/one.pt")

    assert connectors[writer].ask("save", ground, uri=uri, seed=1) is None
    assert connectors[reader].ask("load", ground, uri=uri, seed=1) is True
    assert connectors[reader].ask("load", ground, uri=uri, seed=2) is False


@pytest.mark.parametrize("writer", [OURS, ORIGINAL])
@pytest.mark.parametrize("reader", [OURS, ORIGINAL])
def test_what_one_saves_as_safetensors_the_other_loads(
    connectors: dict[str, Connector], ground: Ground, writer: str, reader: str
) -> None:
    uri = ground.uri("models/one.safetensors")

    assert connectors[writer].ask("save_tensors", ground, uri=uri, seed=1) is None
    assert connectors[reader].ask("load_tensors", ground, uri=uri, seed=1) is True


@pytest.mark.parametrize(
    ("case", "arguments", "ours_raises", "told"),
    [
        (
            "items",
            {"kind": "map", "source": "objects", "uris": ["oss://{bucket}/missing"]},
            "ObjectNotFound",
            "missing",
        ),
        (
            "items",
            {"kind": "map", "source": "prefix", "uri": "oss://no-such-bucket/a/"},
            "BucketNotFound",
            "no-such-bucket",
        ),
        ("items", {"kind": "map", "source": "prefix", "uri": "data/"}, "InvalidOption", "data/"),
        (
            "items",
            {"kind": "map", "source": "manifest", "path": "/nothing", "base": ""},
            "ManifestMalformed",
            "/nothing",
        ),
        ("load", {"uri": "oss://{bucket}/missing", "seed": 1}, "ObjectNotFound", "missing"),
    ],
)
def test_both_refuse_and_ours_says_why(
    ours: Connector,
    original: Connector,
    ground: Ground,
    case: str,
    arguments: dict[str, Any],
    ours_raises: str,
    told: str,
) -> None:
    filled = {
        name: [text.format(bucket=ground.emulator.bucket) for text in value]
        if isinstance(value, list)
        else value.format(bucket=ground.emulator.bucket)
        if isinstance(value, str)
        else value
        for name, value in arguments.items()
    }

    found, expected = ours.ask(case, ground, **filled), original.ask(case, ground, **filled)

    assert isinstance(expected, Raised)
    assert isinstance(found, Raised)
    assert found.type == ours_raises
    assert told in found.text


@pytest.mark.parametrize("case", ["items", "save"])
def test_wrong_keys_are_refused(ours: Connector, original: Connector, objects: Ground, case: str) -> None:
    Path(objects.cred_path).write_text('{"AccessKeyId": "LTAI5tTestEmulatorKey", "AccessKeySecret": "not-the-secret"}')
    given = {"kind": "map", "source": "prefix", "uri": objects.uri("data/"), "seed": 1}

    found, expected = ours.ask(case, objects, **given), original.ask(case, objects, **given)

    assert isinstance(expected, Raised)
    assert isinstance(found, Raised)
    assert "not-the-secret" not in found.text


# --- where the original is wrong ---


def test_the_original_cannot_be_imported_by_star(ours: Connector, original: Connector, ground: Ground) -> None:
    assert original.ask("star", ground).type == "AttributeError"
    assert ours.ask("star", ground) is True


def test_the_original_ends_the_process_when_a_reader_outlives_its_checkpoint(
    ours: Connector, original: Connector, objects: Ground
) -> None:
    assert original.ask("read_of_a_temporary", objects, uri=objects.uri(key(7))).type == DIED
    assert ours.ask("read_of_a_temporary", objects, uri=objects.uri(key(7))) == len(content(7))


def test_the_original_removes_a_checkpoint_before_it_writes_the_new_one(
    ours: Connector, original: Connector, ground: Ground
) -> None:
    ground.emulator.seed("old.pt", b"good")

    original.ask("save", ground, uri=ground.uri("old.pt"), seed=1)
    assert ground.emulator.count("DeleteObject") == 1

    ground.emulator.reset_counters()
    ours.ask("save", ground, uri=ground.uri("old.pt"), seed=2)
    assert ground.emulator.count("DeleteObject") == 0
    assert ours.ask("load", ground, uri=ground.uri("old.pt"), seed=2) is True


def test_the_original_makes_half_a_checkpoint_when_saving_raises(
    ours: Connector, original: Connector, ground: Ground
) -> None:
    ground.emulator.seed("theirs.pt", b"good")
    ground.emulator.seed("ours.pt", b"good")
    part = {"offset": 0, "size": 4}

    assert original.ask("save_and_raise", ground, uri=ground.uri("theirs.pt")).type == "KeyboardInterrupt"
    assert ours.ask("save_and_raise", ground, uri=ground.uri("ours.pt")).type == "KeyboardInterrupt"

    assert bytes.fromhex(ours.ask("read_part", ground, uri=ground.uri("theirs.pt"), **part)) == b"half"
    assert bytes.fromhex(ours.ask("read_part", ground, uri=ground.uri("ours.pt"), **part)) == b"good"


def test_the_original_fetches_a_whole_checkpoint_for_a_few_bytes(
    ours: Connector, original: Connector, ground: Ground
) -> None:
    size = 64 << 20
    ground.emulator.seed("large", size=size)
    given = {"uri": ground.uri("large"), "offset": size - 1000, "size": 10}
    sent = {}
    for connector in (original, ours):
        ground.emulator.reset_counters()
        assert len(connector.ask("read_part", ground, **given)) == 20
        sent[connector.module] = ground.emulator.counters()["bytes_out"]

    assert sent[ORIGINAL] >= size
    assert sent[OURS] < size // 8


def test_the_original_leaves_missing_objects_out_without_a_word(
    ours: Connector, original: Connector, objects: Ground
) -> None:
    given = {"kind": "iterable", "source": "objects"}
    given["uris"] = [objects.uri(key(1)), objects.uri("missing"), objects.uri(key(2))]

    assert len(original.ask("items", objects, **given)) == 2

    found = ours.ask("items", objects, **given)
    assert found.type == "ObjectNotFound"
    assert "missing" in found.text
    assert len(ours.ask("items", objects, **given, more={"on_error": "skip"})) == 2


def test_the_original_leaves_empty_objects_out(ours: Connector, original: Connector, objects: Ground) -> None:
    objects.emulator.seed("data/empty", b"")
    given = {"kind": "map", "source": "prefix", "uri": objects.uri("data/")}

    theirs = {item[0] for item in original.ask("items", objects, **given)}
    found = {item[0] for item in ours.ask("items", objects, **given)}

    assert found - theirs == {f"/{objects.emulator.bucket}/data/empty"}
    assert not theirs - found


def test_the_original_has_no_error_for_a_missing_object_of_a_batch(
    ours: Connector, original: Connector, objects: Ground
) -> None:
    given = {"source": "objects", "uris": [objects.uri(key(1)), objects.uri("missing")], "numbers": [0, 1]}

    theirs = original.ask("batch", objects, patience=15, **given)  # None in its place, or it never comes back
    found = ours.ask("batch", objects, **given)

    assert theirs.type == DIED if isinstance(theirs, Raised) else theirs[1] is None
    assert found.type == "ObjectNotFound"


def test_the_original_makes_an_item_of_a_blank_line_of_a_manifest(
    ours: Connector, original: Connector, objects: Ground, tmp_path: Path
) -> None:
    path = tmp_path / "manifest"
    path.write_text(f"{key(1)}\tx\n\n{key(2)}\ty\n")
    given = {"kind": "map", "source": "manifest", "path": str(path), "base": objects.uri()}

    theirs = original.ask("items", objects, patience=15, **given)  # it may ask for it for ever
    found = ours.ask("items", objects, **given)

    assert isinstance(theirs, Raised) or theirs[1][0] == f"/{objects.emulator.bucket}/"
    assert (found.type, "2" in found.text) == ("ManifestMalformed", True)


def test_the_original_cannot_shuffle_an_archive(ours: Connector, original: Connector, objects: Ground) -> None:
    archive = {"tar": objects.uri("shard.tar"), "index": objects.uri("shard.index")}
    original.ask("index_archive", objects, uri=objects.uri("data/odd/"), **archive)
    given = {"kind": "iterable", "source": "tar", "more": {"shuffle": True}, **archive}

    assert original.ask("items", objects, **given).type == "AttributeError"

    found = ours.ask("items", objects, **given)
    in_order = ours.ask("items", objects, **{**given, "more": {}})
    assert sorted(found) == sorted(in_order)
    assert found != in_order


def test_a_map_data_set_of_the_original_cannot_be_sent_to_workers_that_are_spawned(
    ours: Connector, original: Connector, objects: Ground
) -> None:
    given = {"kind": "map", "source": "prefix", "uri": objects.uri("data/"), "workers": 2, "start": "spawn"}

    assert original.ask("loader", objects, **given).type == "TypeError"

    batches = ours.ask("loader", objects, **given)
    assert batches == ours.ask("loader", objects, **{**given, "workers": 0, "start": ""})


def test_an_item_of_the_original_cannot_be_pickled(ours: Connector, original: Connector, objects: Ground) -> None:
    uris = [objects.uri(key(3))]

    assert isinstance(original.ask("pickled", objects, uris=uris), Raised)
    assert (
        ours.ask("pickled", objects, uris=uris)
        == ours.ask("items", objects, kind="map", source="objects", uris=uris)[0]
    )


@pytest.mark.parametrize("missing", ["config_path", "region"], ids=["without a configuration file", "without a region"])
def test_the_original_cannot_do_without(ours: Connector, original: Connector, objects: Ground, missing: str) -> None:
    given = {"kind": "map", "source": "prefix", "uri": objects.uri("data/"), "more": {missing: ""}}

    assert isinstance(original.ask("items", objects, **given), Raised)
    assert len(ours.ask("items", objects, **given)) == COUNT + 1


def test_the_original_cannot_be_led_to_an_address(ours: Connector, original: Connector, objects: Ground) -> None:
    given = {"kind": "map", "source": "prefix", "uri": objects.uri("data/")}
    given["more"] = {"endpoint": objects.emulator.endpoint}

    assert isinstance(original.ask("items", objects, **given), Raised)
    assert len(ours.ask("items", objects, **given)) == COUNT + 1
