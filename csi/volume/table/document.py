"""docs/options.md, written from the option table: `python -m csi.volume.table.document > docs/options.md`.

The document holds nothing that is not in the tables the parser uses; a test fails when it is out of date.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from csi.volume.modes import NAMES, PROMISES, expansion
from csi.volume.spec import Mode
from csi.volume.table.argument_table import ARGUMENTS, ArgumentValue
from csi.volume.table.option import Effect, Kind, Option, Topic
from csi.volume.table.options import TABLE

_INTRODUCTION = """# Options of a volume

<!-- Written by `make docs` from csi/volume; do not edit. -->

A volume is described by `spec.csi.volumeAttributes` of a PersistentVolume, by `parameters` of a StorageClass, or by
the `uri` and `options` of a PAI dataset. All values are text; numbers and booleans inside the `options` JSON are
accepted too. `ossfuse volume explain FILE` shows what a description means, value by value.

- An option that is given wins over the same option in `options`, that over the mode, that over the default.
- FUSE arguments are merged one by one: what `fs.jindo.args` does not mention stays as the mode has it.
- Sizes in bytes take a number or a Kubernetes quantity (`4194304` or `4Mi`).
- Keys of the JindoSDK that mean nothing here are accepted and change nothing, which the log and `volume explain` say.
- Any other key is refused with the nearest one that exists. Keys that would hold credentials are refused: a
  PersistentVolume is readable by many, so they belong into a Secret.
"""

_ARGUMENTS = """## Arguments in `fs.jindo.args`

Written as `-oNAME` or `-oNAME=VALUE`, separated by spaces. Lists (`-o ro,attr_timeout=3`), commas
(`-oattr_timeout=3, -onegative_timeout=0`) and arguments without spaces (`-oattr_timeout=0-oentry_timeout=0`) are read
as they are meant. `mountOptions` of a PersistentVolume take the same names with or without `-o`. `-ofs.oss.…=…` and
`-ologger.…=…` set an option of the tables above. Any other argument is refused.
"""


def document() -> str:
    """The text of docs/options.md."""
    return "\n".join([_INTRODUCTION, *_modes(), *_options(), _ARGUMENTS, *_arguments()]).rstrip() + "\n"


def _modes() -> Iterator[str]:
    yield "## Modes\n"
    yield "`2 × CPU` is twice the number of processors of the node.\n"
    rows = []
    for mode in Mode:
        options = expansion(mode, 1)
        threads = [key.split(".")[2] for key in options if key.endswith(".thread.concurrency")]
        rows.append(
            (
                f"`{mode.value}`",
                ", ".join(f"`{name}`" for name in NAMES[mode]),
                f"{' and '.join(threads)} 2 × CPU" if threads else "–",
                f"`{options['fs.jindo.args']}`" if "fs.jindo.args" in options else "–",
                PROMISES[mode],
            )
        )
    yield from _table(("mode", "other names", "threads", "arguments", "promise"), rows)


def _options() -> Iterator[str]:
    for topic in Topic:
        rows = [row for row in TABLE if row.topic is topic]
        yield f"## {topic.value}\n"
        effective = [row for row in rows if row.effect in (Effect.IMPLEMENTED, Effect.AT_CREATION)]
        if effective:
            yield from _table(
                ("key", "value", "default", "meaning"),
                ((_names(row.names), _accepted(row), _default(row), row.documentation) for row in effective),
            )
        others = [row for row in rows if row not in effective]
        if others:
            yield from _table(
                ("key", "what happens", "why, and what to use"),
                ((_names(row.names), row.effect.value, row.reason) for row in others),
            )


def _arguments() -> Iterator[str]:
    effective = [row for row in ARGUMENTS if row.effect is Effect.IMPLEMENTED]
    yield from _table(
        ("argument", "value", "meaning"),
        (
            (_names(f"-o{name}" for name in (row.name, *row.aliases)), row.value.value or "–", row.documentation)
            for row in effective
        ),
    )
    reasons: dict[tuple[Effect, str], list[str]] = {}
    for row in ARGUMENTS:
        if row.effect is not Effect.IMPLEMENTED:
            reasons.setdefault((row.effect, row.reason), []).append(
                f"-o{row.name}" if row.value is not ArgumentValue.NONE else row.name
            )
    yield from _table(
        ("argument", "what happens", "why, and what to use"),
        ((_names(names), effect.value, reason) for (effect, reason), names in reasons.items()),
    )


def _accepted(row: Option) -> str:
    if row.kind is Kind.CHOICE:
        return ", ".join(f"`{name}`" for name in row.choices if name)
    limits = ""
    if row.minimum is not None and row.maximum is not None:
        limits = f", {row.written(row.minimum)} to {row.written(row.maximum)}"
    elif row.minimum is not None:
        limits = f", at least {row.written(row.minimum)}"
    return f"{row.kind.value}{limits}"


def _default(row: Option) -> str:
    by_mode = "".join(f"; {value} in mode `{mode}`" for mode, value in row.by_mode.items())
    return f"{row.default or '–'}{by_mode}"


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
    yield ""


if __name__ == "__main__":
    sys.stdout.write(document())
