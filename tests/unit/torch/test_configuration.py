"""config.json of the guide."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from csi.errors import InvalidOption
from csi.torch.configuration import Configuration, load, parse
from csi.volume.units import MIB

GUIDE = """{
    "logLevel": 1,
    "logPath": "/var/log/oss-connector/connector.log",
    "auditPath": "/var/log/oss-connector/audit.log",
    "datasetConfig": {"prefetchConcurrency": 24, "prefetchWorker": 2},
    "checkpointConfig": {"prefetchConcurrency": 24, "prefetchWorker": 4, "uploadConcurrency": 64}
}"""


def test_the_guides_file_is_understood() -> None:
    configuration = parse(GUIDE, source="config.json")
    assert configuration.log.level == logging.INFO
    assert (configuration.dataset.concurrency, configuration.dataset.workers) == (24, 2)
    assert configuration.checkpoint.upload_concurrency == 64


def test_an_empty_file_gives_the_guides_defaults() -> None:
    configuration = parse("{}", source="config.json")
    assert configuration == Configuration()
    assert (configuration.dataset.concurrency, configuration.dataset.workers) == (24, 4)
    assert configuration.log.path == "/var/log/oss-connector/connector.log"


def test_sizes_are_in_mebibytes() -> None:
    configuration = parse('{"datasetConfig": {"prefetchMB": 32}}', source="config.json")
    assert configuration.dataset.budget == 32 * MIB


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="config_path"):
        load(str(tmp_path / "config.json"))


def test_a_named_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"logPath": "", "logLevel": "3"}')
    configuration = load(str(tmp_path / "config.json"))
    assert (configuration.log.path, configuration.log.level) == ("", logging.ERROR)


def test_a_half_written_file_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"logLevel": ')
    with pytest.raises(InvalidOption, match="not JSON"):
        load(str(tmp_path / "config.json"))


@pytest.mark.parametrize(
    "given",
    [
        {"logLevel": 4},
        {"logLevel": True},
        {"datasetConfig": []},
        {"datasetConfig": {"prefetchConcurrency": 0}},
        {"checkpointConfig": {"uploadConcurrency": "many"}},
        {"auditPath": 1},
    ],
)
def test_a_value_that_is_none_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(InvalidOption, match=r"config\.json"):
        parse(json.dumps(given), source="config.json")


def test_an_unknown_key_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(InvalidOption, match="did you mean prefetchConcurrency"):
        parse('{"datasetConfig": {"prefetchConcurency": 8}}', source="config.json")


def test_a_key_without_effect_is_said_to_have_none(caplog: pytest.LogCaptureFixture) -> None:
    parse('{"datasetConfig": {"enableBatchGet": true}}', source="config.json")
    assert "datasetConfig.enableBatchGet is accepted, but has no effect" in caplog.text
