"""How one option is named, read from text or TOML, checked and explained.

The mechanism only: the options themselves stand in ``config.py``.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

from calliope.errors import ConfigError

Value: TypeAlias = int | str | tuple[str, ...]
T = TypeVar("T", int, str, tuple[str, ...])

VARIABLE_PREFIX = "CALLIOPE_"
DEFAULT_ORIGIN = "default"
OTHER_VARIABLES = frozenset({"CALLIOPE_CONFIG", "CALLIOPE_CACHE_DIR"})
"""Variables that are read elsewhere: the TOML file's path, the kernel cache's folder."""
# Kubernetes tells every pod about a Service that is called "calliope" in variables like these.
_SERVICE_VARIABLE = re.compile(r"CALLIOPE_(SERVICE_(HOST|PORT)(_\w+)?|PORT(_\d+_\w+)?)")
_WHOLE_NUMBER = re.compile(r"[+-]?\d{1,18}")


@dataclass(frozen=True, slots=True)
class Rule:
    """What a value (of a list: each item) must satisfy; ``words`` completes "must be ..."."""

    words: str
    holds: Callable[[Any], bool]


def whole(minimum: int, maximum: int) -> Rule:
    """A whole number within bounds, both included."""
    return Rule(
        f"a whole number from {minimum} to {maximum}", lambda value: minimum <= value <= maximum
    )


def even(minimum: int, maximum: int) -> Rule:
    """An even number within bounds, both included."""
    return Rule(
        f"an even number from {minimum} to {maximum}",
        lambda value: minimum <= value <= maximum and value % 2 == 0,
    )


def one_of(*choices: str) -> Rule:
    """One of a few words."""
    return Rule(f"{', '.join(choices[:-1])} or {choices[-1]}", lambda value: value in choices)


def matching(pattern: str, words: str) -> Rule:
    """Text that the whole of a regular expression matches."""
    compiled = re.compile(pattern)
    return Rule(words, lambda value: compiled.fullmatch(value) is not None)


def checked(holds: Callable[[str], bool], words: str) -> Rule:
    """Text that a function accepts."""
    return Rule(words, holds)


@dataclass(frozen=True, slots=True)
class Option:
    """One knob, under its one name."""

    section: str
    key: str
    default: Value
    doc: str
    rule: Rule
    secret: bool

    @property
    def name(self) -> str:
        """As in messages and documentation: ``mixer.fps``."""
        return f"{self.section}.{self.key}"

    @property
    def flag(self) -> str:
        """On the command line: ``--mixer-fps``."""
        return f"--{self.section}-{self.key}".replace("_", "-")

    @property
    def variable(self) -> str:
        """In the environment: ``CALLIOPE_MIXER_FPS``."""
        return f"{VARIABLE_PREFIX}{self.section}_{self.key}".upper()

    @property
    def is_list(self) -> bool:
        return isinstance(self.default, tuple)

    def from_text(self, text: str) -> Value:
        """The value that text from a command line or variable means; ValueError if it is none."""
        if isinstance(self.default, tuple):
            return tuple(item.strip() for item in text.split(",") if item.strip())
        if isinstance(self.default, int):
            if not _WHOLE_NUMBER.fullmatch(text.strip()):
                raise ValueError(text)
            return int(text)
        return text.strip()

    def from_toml(self, value: object) -> Value:
        """The value that a TOML value means; ValueError if it is of another type."""
        if isinstance(self.default, tuple):
            if isinstance(value, list) and all(isinstance(item, str) for item in value):
                return tuple(item.strip() for item in value)
        elif isinstance(self.default, int):
            if isinstance(value, int) and not isinstance(value, bool):
                return value
        elif isinstance(value, str):
            return value.strip()
        raise ValueError(value)

    def first_fault(self, value: Value) -> Value | None:
        """The value, or the first item of a list, that breaks the rule; None when all is well."""
        for item in value if isinstance(value, tuple) else (value,):
            if not self.rule.holds(item):
                return item
        return None


@dataclass(frozen=True, slots=True)
class Setting:
    """A value and where it came from, in words."""

    value: Value
    origin: str


def option(default: T, doc: str, rule: Rule, *, secret: bool = False) -> T:
    """A dataclass field that is an option. A ``secret`` is never shown in a message."""
    metadata = {"doc": doc, "rule": rule, "secret": secret}
    return dataclasses.field(default=default, metadata=metadata)


def options_of(config_type: type[Any]) -> tuple[Option, ...]:
    """Every option of a dataclass whose fields are dataclasses of options, in their order."""
    return tuple(
        Option(section.name, knob.name, cast(Value, knob.default), **knob.metadata)
        for section in dataclasses.fields(config_type)
        for knob in dataclasses.fields(cast(Any, section.default_factory))
    )


def read_settings(
    options: Sequence[Option],
    overrides: Mapping[str, str],
    environ: Mapping[str, str],
    toml_path: Path | None,
) -> dict[str, Setting]:
    """Every option's setting by name: command line, else environment, else file, else default.

    ``overrides`` maps option names to text from the command line. Raises ConfigError for a value
    that breaks its option's rule and for anything that is no option.
    """
    settings = {knob.name: Setting(knob.default, DEFAULT_ORIGIN) for knob in options}
    if toml_path is not None:
        settings.update(_from_file(options, toml_path))
    settings.update(_from_environment(options, environ))
    by_name = {knob.name: knob for knob in options}
    for name, text in overrides.items():
        if name not in by_name:
            raise ConfigError(unknown(name, "command line", by_name))
        knob = by_name[name]
        settings[name] = _setting(knob, text, f"command line, {knob.flag}", knob.from_text)
    return settings


def unknown(name: str, origin: str, known: Iterable[str]) -> str:
    """The sentence about a name that is no option, with the nearest one that is."""
    near = difflib.get_close_matches(name, list(known), n=1)
    hint = f"; did you mean {near[0]}?" if near else "."
    return f"There is no option {name} ({origin}){hint}"


def _setting(knob: Option, raw: Any, origin: str, convert: Callable[[Any], Value]) -> Setting:
    try:
        value = convert(raw)
    except ValueError:
        words = f"a list, each item {knob.rule.words}" if knob.is_list else knob.rule.words
        raise ConfigError(_refusal(knob, "is", raw, origin, f"it must be {words}")) from None
    fault = knob.first_fault(value)
    if fault is None:
        return Setting(value, origin)
    verb, subject = ("holds", "each item") if knob.is_list else ("is", "it")
    raise ConfigError(_refusal(knob, verb, fault, origin, f"{subject} must be {knob.rule.words}"))


def _refusal(knob: Option, verb: str, value: object, origin: str, demand: str) -> str:
    shown = "a value that is not shown" if knob.secret else repr(value)
    return f"{knob.name} {verb} {shown} ({origin}), but {demand}."


def _from_environment(options: Sequence[Option], environ: Mapping[str, str]) -> dict[str, Setting]:
    by_variable = {knob.variable: knob for knob in options}
    settings = {}
    for variable, text in environ.items():
        if not variable.startswith(VARIABLE_PREFIX) or variable in OTHER_VARIABLES:
            continue
        if variable in by_variable:
            knob = by_variable[variable]
            origin = f"environment variable {variable}"
            settings[knob.name] = _setting(knob, text, origin, knob.from_text)
        elif not _SERVICE_VARIABLE.fullmatch(variable):
            raise ConfigError(unknown(variable, "environment variable", by_variable))
    return settings


def _from_file(options: Sequence[Option], path: Path) -> dict[str, Setting]:
    try:
        text = path.read_text(encoding="utf-8")
        tables = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(
            f"The configuration file {path} cannot be read: {error.strerror}."
        ) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"The configuration file {path} is not TOML: {error}.") from None
    by_name = {knob.name: knob for knob in options}
    sections = dict.fromkeys(knob.section for knob in options)
    settings = {}
    for section, table in tables.items():
        if section not in sections or not isinstance(table, dict):
            names = ", ".join(f"[{known}]" for known in sections)
            raise ConfigError(
                f"'{section}' (file {path}{_line(text, section, None)}) is no section;"
                f" the sections are {names}."
            )
        for key, value in table.items():
            origin = f"file {path}{_line(text, section, key)}"
            knob = by_name.get(f"{section}.{key}")
            if knob is None:
                raise ConfigError(unknown(f"{section}.{key}", origin, by_name))
            settings[knob.name] = _setting(knob, value, origin, knob.from_toml)
    return settings


def _line(text: str, section: str, key: str | None) -> str:
    """``", line N"`` of a section or key; nothing when it is written in an unusual way.

    tomllib tells no positions, so this looks for the plain spellings.
    """
    current = ""
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[\s*([\w-]+)\s*\]", line)
        name = re.match(r"\s*([\w-]+(?:\s*\.\s*[\w-]+)?)\s*=", line)
        if header:
            current = header[1]
            if key is None and current == section:
                return f", line {number}"
        elif name:
            full = re.sub(r"\s", "", f"{current}.{name[1]}" if current else name[1])
            if full == (f"{section}.{key}" if key is not None else section):
                return f", line {number}"
    return ""


def as_text(value: Value) -> str:
    """A value as it is written on the command line."""
    return ",".join(value) if isinstance(value, tuple) else str(value)


def as_toml(options: Iterable[Option]) -> str:
    """A TOML file with every option at its default, explained and commented out."""
    lines = ["# Every option of Calliope with its default: take away the '#' before what you set."]
    for section, knobs in groupby(options, key=lambda knob: knob.section):
        lines += ["", f"[{section}]"]
        for knob in knobs:
            # JSON writes strings, numbers and arrays of strings as TOML does.
            lines += [
                "",
                f"# {knob.doc}",
                f"# {'Each item' if knob.is_list else 'Allowed'}: {knob.rule.words}.",
                f"# {knob.key} = {json.dumps(knob.default, ensure_ascii=False)}",
            ]
    return "\n".join(lines) + "\n"


def as_markdown(options: Iterable[Option]) -> str:
    """The table of every option for the documentation."""
    lines = ["| option | default | allowed | meaning |", "|---|---|---|---|"]
    for knob in options:
        default = f"`{as_text(knob.default)}`" if knob.default not in ("", ()) else "empty"
        words = f"each: {knob.rule.words}" if knob.is_list else knob.rule.words
        lines.append(f"| `{knob.name}` | {default} | {words} | {knob.doc} |")
    return "\n".join(lines) + "\n"
