"""The grammar of FUSE arguments, including the broken spellings that guides print.

Accepted alike: `-oro -oattr_timeout=3`, `-o ro,attr_timeout=3`, arguments glued together
(`-oattr_timeout=0-oentry_timeout=0`), separated by commas (`-oattr_timeout=3, -onegative_timeout=0`), and the list
form of PersistentVolume `mountOptions` without any `-o`. Whatever is not in the argument table is refused with its
nearest neighbour; nothing is dropped in silence. The result is what was said, not what holds: merging it with the
mode is the parser's.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from csi.errors import InvalidOption
from csi.volume.spec import CachePolicy
from csi.volume.table.argument_table import BY_NAME, OPTION_PREFIXES, Argument, ArgumentValue
from csi.volume.table.option import Effect
from csi.volume.units import Seconds

Value = bool | int | Seconds | CachePolicy

_WORDS = re.compile(r"(?P<gap>[\s,]*)(?P<word>[^\s,]+)")
_KNOWN_NAME = "|".join(sorted((*map(re.escape, BY_NAME), r"(?:fs|logger)\."), key=len, reverse=True))
_GLUED_KNOWN = re.compile(rf"-o(?=(?:{_KNOWN_NAME})(?:$|=|-o|(?<=\.)))")
_BARE_FLAGS = ("-f", "-d", "-s")
_LONGEST_TIMEOUT = 2**31
_LARGEST_ID = 2**32 - 2
_MOST_THREADS = 10_000
_OWNERSHIP = ("uid", "gid", "umask", "fmask", "dmask")


@dataclass(frozen=True, slots=True)
class ParsedArguments:
    """What one source said. `values` maps fields of MountArguments, `ownership` uid, gid, umask, fmask and dmask;
    `options` are `-ofs.…` keys; `texts` has the spelling of each field's argument; `notes` what had no effect."""

    values: Mapping[str, Value] = field(default_factory=dict)
    ownership: Mapping[str, int] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[tuple[str, str], ...] = ()


def parse_arguments(text: str, *, key: str = "fs.jindo.args") -> ParsedArguments:
    """Read a command line such as `-oro -oattr_timeout=3`; raises InvalidOption naming the argument."""
    return _collect(key, _bodies(key, text))


def parse_mount_flags(flags: Sequence[str], *, key: str = "mountOptions") -> ParsedArguments:
    """Read PersistentVolume `mountOptions`: `["ro", "attr_timeout=3"]`, also with `-o` before them."""
    bodies: list[str] = []
    for flag in flags:
        bodies += _bodies(key, flag if flag.lstrip().startswith("-") else f"-o {flag.strip()}" if flag.strip() else "")
    return _collect(key, bodies)


def _bodies(key: str, text: str) -> Iterator[str]:
    """The texts after each `-o`, commas and glue undone."""
    expected = ""  # "-o": an argument must follow; "list": one may follow after a comma
    for match in _WORDS.finditer(text):
        word = match["word"]
        if word == "-o":
            _nothing_expected(key, expected)
            expected = "-o"
        elif word in _BARE_FLAGS:
            _nothing_expected(key, expected)
            yield word[1:] if word != "-s" else "f"
            expected = ""
        elif word.startswith("-o"):
            _nothing_expected(key, expected)
            yield from _unglue(word[2:])
            expected = "list"
        elif expected == "-o" or (expected == "list" and "," in match["gap"]):
            yield from _unglue(word)
            expected = "list"
        else:
            name = word.partition("=")[0]
            hint = f"write -o{name}" if name in BY_NAME else "write arguments as -oNAME or -oNAME=VALUE"
            raise InvalidOption.stating(key, f"{key}: {name[:200]!r} is not an argument", hint=hint)
    _nothing_expected(key, expected)


def _nothing_expected(key: str, expected: str) -> None:
    if expected == "-o":
        raise _nothing_follows(key)


def _nothing_follows(key: str) -> InvalidOption:
    return InvalidOption.stating(key, f"{key}: nothing follows '-o'", hint="write -oNAME or -oNAME=VALUE")


def _unglue(body: str) -> Iterator[str]:
    """Cut `a=1-ob=2-oc` into its arguments. Values that are free text are cut only before a known name."""
    while body:
        name = body.partition("=")[0].partition("-o")[0]
        argument = BY_NAME.get(name)
        free_text = name.startswith(OPTION_PREFIXES) or (argument is not None and argument.value is ArgumentValue.ANY)
        if free_text:
            match = _GLUED_KNOWN.search(body)
            cut = match.start() if match else -1
        else:
            cut = body.find("-o")
        if cut < 0:
            yield body
            return
        yield body[:cut]
        body = body[cut + 2 :]
        if not body:
            yield ""


def _collect(key: str, bodies: Iterable[str]) -> ParsedArguments:
    said: dict[str, Value] = {}
    options: dict[str, str] = {}
    texts: dict[str, str] = {}
    notes: list[tuple[str, str]] = []
    for body in bodies:
        name, equals, text = body.partition("=")
        if name.startswith(OPTION_PREFIXES):
            if not text:
                raise InvalidOption(f"{key}: -o{name}", "", "a value", hint=f"write -o{name}=VALUE")
            options[name] = text
            continue
        argument = _find(key, name)
        if argument.effect is Effect.NO_EFFECT:
            notes.append((f"-o{name}", argument.reason))
            continue
        value = _value(key, argument, name, text if equals else None)
        previous = said.get(argument.sets)
        if previous is not None and previous != value:
            value = _reconcile(key, argument.sets, previous, value, notes)
        said[argument.sets] = value
        texts[argument.sets] = f"-o{value.value}" if isinstance(value, CachePolicy) else f"-o{body}"
    ownership = {name: value for name, value in said.items() if name in _OWNERSHIP and isinstance(value, int)}
    values = {name: value for name, value in said.items() if name not in _OWNERSHIP}
    return ParsedArguments(values, ownership, options, texts, tuple(notes))


def _find(key: str, name: str) -> Argument:
    if not name:
        raise _nothing_follows(key)
    argument = BY_NAME.get(name)
    if argument is None:
        near = difflib.get_close_matches(name[:200].lower(), BY_NAME, n=1, cutoff=0.7)
        hint = f"did you mean -o{near[0]}?" if near else "docs/options.md lists every argument"
        raise InvalidOption.stating(key, f"{key}: there is no argument {'-o' + name[:200]!r}", hint=hint)
    if argument.effect is Effect.REFUSED:
        raise InvalidOption.stating(key, f"{key}: the argument -o{name} is not accepted here", hint=argument.reason)
    return argument


def _value(key: str, argument: Argument, name: str, text: str | None) -> Value:
    where = f"{key}: -o{name}"
    if argument.value is ArgumentValue.NONE:
        if text is not None:
            raise InvalidOption(where, text, "no value", hint=f"write -o{name} alone, or leave it out")
        if argument.to is None:
            raise AssertionError(f"the flag {name} sets nothing")
        return argument.to
    if text is None:
        raise InvalidOption(where, "", f"{argument.value.value}, as in -o{name}=…")
    if argument.value is ArgumentValue.SECONDS:
        return _seconds(where, text)
    if argument.value is ArgumentValue.OCTAL:
        return octal(where, text)
    return _number(where, text, 1 if name == "max_idle_threads" else 0, _most(name))


def _most(name: str) -> int:
    return _MOST_THREADS if name == "max_idle_threads" else _LARGEST_ID


def _seconds(where: str, text: str) -> Seconds:
    if re.fullmatch(r"[0-9]{1,12}(?:\.[0-9]{0,9})?|\.[0-9]{1,9}", text) and 0 <= float(text) <= _LONGEST_TIMEOUT:
        return Seconds(float(text))
    raise InvalidOption(where, text, "seconds, zero or more, such as 3 or 0.5")


def _number(where: str, text: str, least: int, most: int) -> int:
    if re.fullmatch(r"[0-9]{1,12}", text) and least <= int(text) <= most:
        return int(text)
    raise InvalidOption(where, text, f"an integer from {least} to {most}")


def octal(where: str, text: str) -> int:
    """Permissions as people write them (`022`, `0644`, `0o755`); raises InvalidOption."""
    if re.fullmatch(r"(?:0o)?[0-7]{1,5}", text) and int(text, 8) <= 0o777:
        return int(text, 8)
    raise InvalidOption(where, text, "octal permissions from 0 to 0777, such as 0022")


def _reconcile(key: str, sets: str, previous: object, value: Value, notes: list[tuple[str, str]]) -> Value:
    """Two arguments for one thing: contradictions are refused, else the later one counts, as in libfuse."""
    if sets == "read_only":
        raise InvalidOption.stating(key, f"{key}: -oro and -orw contradict each other", hint="remove one of them")
    if sets == "cache":
        if CachePolicy.DIRECT in (previous, value):
            notes.append(("-odirect_io", "wins over -oauto_cache and -okernel_cache"))
            return CachePolicy.DIRECT
        raise InvalidOption.stating(
            key,
            f"{key}: -oauto_cache and -okernel_cache contradict each other",
            hint="keep -oauto_cache to see changed files, or -okernel_cache for data that never changes",
        )
    notes.append((f"-o{sets}", "given more than once, the last one counts"))
    return value
