"""One connector, ours or the original, in a process of its own: `python -m tests.torch.connector_program MODULE`.

Each line of standard input is a case (its name in CASES below and its arguments, as JSON), each line of standard output
what came of it: `{"result": …}`, or `{"error": TYPE, "text": …}`. The code of a case is the same for both, so that what
differs is the connector. The original can end the process: then there is no answer.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import os
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

Arguments = dict[str, Any]
Described = tuple[str, int, str, str]


def describe(item: Any) -> Described:
    """(key, size, label, hash of the bytes)"""
    body = item.read()
    return item.key, item.size, str(item.label), hashlib.sha256(body).hexdigest()


def describe_or_none(item: Any) -> Described | None:
    return None if item is None else describe(item)


def taken(batch: Iterable[Any]) -> list[Any]:
    return list(batch)


def tabbed(reader: Any) -> Iterator[tuple[str, str]]:
    for line in io.TextIOWrapper(io.BytesIO(reader.read()), newline=None):
        key, _, label = line.rstrip("\n").partition("\t")
        yield key, label


# --- data sets ---


def data_set(module: Any, kind: str, source: str, given: Arguments, transform: Callable[[Any], Any] = describe) -> Any:
    """`source` prefix: given["uri"]; objects: given["uris"]; manifest: given["path"], given["base"], given["parser"];
    tar: given["tar"], given["index"]."""
    chosen = module.OssIterableDataset if kind == "iterable" else module.OssMapDataset
    more = {"transform": transform, **given["connection"], **given.get("more", {})}
    if source == "prefix":
        return chosen.from_prefix(given["uri"], **more)
    if source == "objects":
        return chosen.from_objects(given["uris"], **more)
    if source == "tar":
        return chosen.from_tar(given["tar"], given["index"], **more)
    parser = module.imagenet_manifest_parser if given.get("parser") == "imagenet" else tabbed
    return chosen.from_manifest_file(given["path"], parser, given["base"], **more)


def items(module: Any, given: Arguments) -> list[Described]:
    made = data_set(module, given["kind"], given["source"], given)
    return list(made) if given["kind"] == "iterable" else [made[number] for number in range(len(made))]


def batch(module: Any, given: Arguments) -> list[Described | None]:
    made = data_set(module, "map", given["source"], given, describe_or_none)  # its items are of no use without it
    return list(made.__getitems__(given["numbers"]))


def loader(module: Any, given: Arguments) -> list[list[Described]]:
    """The batches of a DataLoader."""
    made = data_set(module, given["kind"], given["source"], given)
    context = given.get("start") or ("fork" if given["workers"] else None)
    batches = DataLoader(
        made, batch_size=4, num_workers=given["workers"], collate_fn=taken, multiprocessing_context=context
    )
    return [list(found) for found in batches]


def pickled(module: Any, given: Arguments) -> Described:
    made = data_set(module, "map", "objects", given, lambda item: item)
    return describe(pickle.loads(pickle.dumps(made[0])))


def as_a_file(module: Any, given: Arguments) -> list[Any]:
    """What the methods of a file give, of an object of 10 bytes."""

    def use(item: Any) -> list[Any]:
        with item as file:
            place = bytearray(4)
            return [
                *(file.read(3).decode(), file.tell(), file.seek(1), file.readinto(place), place.decode()),
                *(file.seek(-2, 2), file.read(100).decode(), file.read().decode()),
                *(file.seek(0), file.seek(2, 1), file.read(2).decode()),
            ]

    return list(data_set(module, "map", "objects", given, use)[0])


def index_archive(module: Any, given: Arguments) -> None:
    """Write an archive of a prefix, and its index."""
    connection = given["connection"]
    module.generate_tar_archive(
        connection["endpoint"],
        connection["cred_path"],
        connection["config_path"],
        given["tar"],
        given["index"],
        given["uri"],
        region=connection["region"],
    )


# --- checkpoints ---


def state(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(300, 400, generator=generator) for name in ("weight", "bias", "mean")}


def save(module: Any, given: Arguments) -> None:
    checkpoint = module.OssCheckpoint(**given["connection"])
    with checkpoint.writer(given["uri"]) as writer:
        torch.save(state(given["seed"]), writer)


def save_and_raise(module: Any, given: Arguments) -> None:
    checkpoint = module.OssCheckpoint(**given["connection"])
    with checkpoint.writer(given["uri"]) as writer:
        writer.write(b"half of it")
        raise KeyboardInterrupt("stopped while saving")


def load(module: Any, given: Arguments) -> bool:
    """Whether what is loaded is the state of this seed."""
    checkpoint = module.OssCheckpoint(**given["connection"])
    with checkpoint.reader(given["uri"]) as reader:
        found = torch.load(reader)
    expected = state(given["seed"])
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def read_part(module: Any, given: Arguments) -> str:
    checkpoint = module.OssCheckpoint(**given["connection"])
    with checkpoint.reader(given["uri"]) as reader:
        reader.seek(given["offset"])
        return str(reader.read(given["size"]).hex())


def read_of_a_temporary(module: Any, given: Arguments) -> int:
    return len(module.OssCheckpoint(**given["connection"]).reader(given["uri"]).read())


def save_tensors(module: Any, given: Arguments) -> None:
    module.OssSafetensor(**given["connection"]).save_file(state(given["seed"]), given["uri"], {"by": "a test"})


def load_tensors(module: Any, given: Arguments) -> bool:
    found = module.OssSafetensor(**given["connection"]).load_file(given["uri"], "cpu")
    expected = state(given["seed"])
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def star(module: Any, given: Arguments) -> bool:
    names: dict[str, Any] = {}
    exec(f"from {module.__name__} import *", names)
    return "OssMapDataset" in names


CASES: dict[str, Callable[[Any, Arguments], Any]] = {
    case.__name__: case
    for case in (
        *(items, batch, loader, pickled, as_a_file, index_archive, star),
        *(save, save_and_raise, load, read_part, read_of_a_temporary, save_tensors, load_tensors),
    )
}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the original prints there
    module = importlib.import_module(sys.argv[1])
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = {"result": CASES[asked["case"]](module, asked["arguments"])}
        except BaseException as error:
            answer = {"error": type(error).__name__, "text": str(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
