"""Configuration from a mapping, a TOML or a JSON file: one queue, or several with what they share.

    name = "jobs"                         [defaults]
    disk_path = "/var/lib/app"            disk_path = "/var/lib/app"
    memory_limit = "64MiB"
                                          [queues.jobs]
                                          memory_limit = "64MiB"

                                          [queues.audit]
                                          durability = "power"

The keys are the options of a queue, in the words of `options.from_words`; a section of `queues` is a queue of that name, `defaults` holds for all of them, and a key of a section wins as a
whole. Nothing else is known, so nothing is misread.

`problems_in` finds everything that is wrong at once, each with its line; `load_config` and `load_queues` raise the first. Nothing is created, and no folder is looked at.
"""
from __future__ import annotations

import difflib
import json
import os
import pathlib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from .errors import InvalidOption
from .options import OPTION_NAMES, Options, folder_path, from_words, validate_name

__all__ = ["Problem", "load_config", "load_queues", "problems_in"]

Source = Mapping[str, Any] | str | os.PathLike[str]
Place = tuple[str, ...]
"""The keys that lead to a value, from the top of the file."""

_SECTIONS: Final = ("defaults", "queues")
_STAND_INS: Final[dict[str, Any]] = {"name": "queue", "disk_path": "/"}
"""For what others need and is not there, or is wrong itself."""


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a configuration."""

    place: Place
    line: int | None
    """None for a mapping, and where the place is the file itself."""
    error: InvalidOption

    @property
    def key(self) -> str:
        """As one would write it in TOML: `queues.jobs.ttl`."""
        return ".".join(self.place)


@dataclass(frozen=True)
class _Document:
    """A configuration as it was read, with the lines on which its keys stand."""

    where: str
    words: dict[str, Any]
    lines: Mapping[Place, int]

    @property
    def has_sections(self) -> bool:
        return any(isinstance(self.words.get(name), Mapping) for name in _SECTIONS)

    def line_of(self, place: Place) -> int | None:
        """Of the place, or of what is around it."""
        return next((line for n in range(len(place), 0, -1) if (line := self.lines.get(place[:n])) is not None), None)


def load_config(source: Source, name: str | None = None) -> dict[str, Any]:
    """Keyword arguments for one queue, checked; of a source with several queues, for the one of this name.

    Only what the source says is in the answer, so defaults stay defaults. Whatever is wrong, anywhere in the source, is an `InvalidOption` that names file, line and key.
    """
    document = _read(source)
    queues = _checked(document)
    if document.has_sections:
        if name in queues:
            return queues[name]
        choice = " or ".join(map(repr, queues)) or "left out: there is no queue in there"
        raise InvalidOption("name", name, choice, where=document.where, hint=None if name is None else _guess(name, queues))
    (given,) = queues.values()
    if name is not None:
        if given.setdefault("name", name) != name:
            raise InvalidOption("name", name, f"{given['name']!r}, which is the one queue in there", where=document.where)
        Options(**given)
    return given


def load_queues(source: Source) -> dict[str, dict[str, Any]]:
    """Keyword arguments for every queue of the source by its name, checked as `load_config` does; a queue without a name is an error here."""
    document = _read(source)
    queues = _checked(document)
    if not document.has_sections:
        (given,) = queues.values()
        if given.get("name") is None:
            raise InvalidOption("name", None, "given", where=document.where, hint="it tells one queue from another")
        return {given["name"]: given}
    return queues


def problems_in(source: Source) -> list[Problem]:
    """Everything that is wrong, in the order of the source. A file that cannot be read, or is neither TOML nor JSON, is one problem."""
    try:
        document = _read(source)
    except InvalidOption as error:
        return [Problem((), None, error)]
    return _judge(document)[1]


def _checked(document: _Document) -> dict[str, dict[str, Any]]:
    queues, problems = _judge(document)
    if problems:
        first, *more = problems
        first.error.where = document.where if first.line is None else f"{document.where}, line {first.line}"
        if more:
            first.error.add_note(f"and {len(more)} more, all of which `overspill config check` lists")
        raise first.error
    return queues


def _judge(document: _Document) -> tuple[dict[str, dict[str, Any]], list[Problem]]:
    """What the document says of each queue, and what is wrong with it."""
    found: list[tuple[Place, InvalidOption]] = []
    queues: dict[str, dict[str, Any]] = {}
    if document.has_sections:
        _judge_sections(document.words, queues, found)
    else:
        given = _judge_values((), document.words, _SECTIONS, found)
        _judge_together(given, document.words, {key: (key,) for key in given}, (), found)
        queues[""] = given
    placed = [Problem(place, document.line_of(place), error) for place, error in found]
    return queues, sorted(placed, key=lambda problem: problem.line or 0)


def _judge_sections(words: Mapping[str, Any], queues: dict[str, dict[str, Any]], found: list[tuple[Place, InvalidOption]]) -> None:
    for key in words:
        if key not in _SECTIONS:
            hint = f"options go into [defaults] or [queues.NAME]{_guess(key, _SECTIONS)}"
            found.append(((key,), InvalidOption(str(key), words[key], "left out beside [defaults] and [queues]", hint=hint)))
    sections = {name: _section(words, name, found) for name in _SECTIONS}
    shared = _judge_values(("defaults",), sections["defaults"], (), found)
    for name in sections["queues"]:
        place = ("queues", str(name))
        try:
            validate_name(name)
        except InvalidOption as error:
            found.append((place, error))
            continue
        section = _section(sections["queues"], name, found, place)
        own = _judge_values(place, section, (), found)
        given = {**shared, **own, "name": name}
        _judge_together(given, {**sections["defaults"], **section}, {key: (*(place if key in own else ("defaults",)), key) for key in given}, place, found)
        queues[name] = given


def _section(around: Mapping[str, Any], key: str, found: list[tuple[Place, InvalidOption]], place: Place | None = None) -> Mapping[str, Any]:
    section = around.get(key, {})
    if isinstance(section, Mapping):
        return section
    found.append((place or (key,), InvalidOption(".".join(place or (key,)), section, "a section")))
    return {}


def _judge_values(place: Place, words: Mapping[str, Any], beside: Iterable[str], found: list[tuple[Place, InvalidOption]]) -> dict[str, Any]:
    """The values of a section that are right each by itself. `beside`: what may be written there as well, for the guess at a misspelt key."""
    given = {}
    for key, value in words.items():
        try:
            if key not in OPTION_NAMES:
                raise InvalidOption(str(key), value, "left out: there is no such option" + _guess(key, (*OPTION_NAMES, *beside)))
            if key == "name" and place:
                raise InvalidOption("name", value, "left out: a queue has the name of its section")
            given[key] = from_words(key, value)
            Options(**{**_STAND_INS, key: given[key]})
        except InvalidOption as error:
            given.pop(key, None)
            found.append(((*place, *_keys_in(error, key)), error))
    return given


def _keys_in(error: InvalidOption, key: object) -> Place:
    """Which key the error is about: the one that was looked at, or one inside its value."""
    return tuple(error.option.split(".")) if error.option.startswith(f"{key}.") else (str(key),)


def _judge_together(
    given: Mapping[str, Any], words: Mapping[str, Any], places: Mapping[str, Place], section: Place, found: list[tuple[Place, InvalidOption]],
) -> None:  # fmt: skip
    """What is right by itself may still contradict something else. Each such value is left out in turn, so that one does not hide the next."""
    left = {key: value for key, value in _STAND_INS.items() if key in words} | dict(given)
    while True:
        try:
            Options(**left)
            return
        except InvalidOption as error:
            key = error.option.partition(".")[0]
            if section:
                error.where = f"queue {section[-1]!r}"
            found.append((places.get(key, section), error))
            if left.pop(key, None) is None:
                return


def _guess(key: object, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(key), list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


# --- reading


def _read(source: Source) -> _Document:
    if isinstance(source, Mapping):
        return _Document("config", dict(source), {})
    allowed = "a mapping, or the path of a .toml or .json file"
    path = folder_path("config", source)
    if path is None:
        raise InvalidOption("config", source, allowed)
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in (".toml", ".json"):
        raise InvalidOption("config", path, allowed)
    try:
        text = pathlib.Path(path).read_bytes().decode("utf-8")
    except OSError as error:
        raise InvalidOption("config", path, f"a file that can be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidOption("config", path, f"a file in UTF-8: {error}") from error
    try:
        words = tomllib.loads(text) if suffix == ".toml" else json.loads(text, object_pairs_hook=_no_key_twice)
    except (ValueError, RecursionError) as error:
        raise InvalidOption("config", path, f"a file in {suffix[1:].upper()}: {error}") from error
    if not isinstance(words, dict):
        raise InvalidOption("config", path, "a JSON object of options")
    return _Document(path, words, dict(_lines_of_toml(text) if suffix == ".toml" else _lines_of_json(text)))


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    words: dict[str, Any] = {}
    for key, value in pairs:
        if key in words:
            raise ValueError(f"the key {key!r} is there twice")
        words[key] = value
    return words


# Neither parser says where it found a key. These two only look for keys, in text that is known to be right.

_TOML_KEY: Final = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_TOML_KEYS: Final = rf"({_TOML_KEY}(?:\s*\.\s*{_TOML_KEY})*)"
_TOML_LINE: Final = re.compile(rf"\s*(?:\[\s*{_TOML_KEYS}\s*\]|{_TOML_KEYS}\s*=)")
_TOML_LONG_STRING: Final = re.compile(r'"{3}.*?(?<!\\)"{3}|\'{3}.*?\'{3}', re.DOTALL)
_JSON_TOKEN: Final = re.compile(r'("(?:[^"\\]|\\.)*")(\s*:)?|[{}\[\]]')


def _lines_of_toml(text: str) -> Iterator[tuple[Place, int]]:
    section: Place = ()
    for number, line in enumerate(_TOML_LONG_STRING.sub(lambda long: "''" + "\n" * long[0].count("\n"), text).split("\n"), 1):
        if match := _TOML_LINE.match(line):
            if match[1]:
                section = _toml_place(match[1])
                yield section, number
            else:
                yield (*section, *_toml_place(match[2])), number


def _toml_place(keys: str) -> Place:
    return tuple(key.strip("\"'") for key in re.findall(_TOML_KEY, keys))


def _lines_of_json(text: str) -> Iterator[tuple[Place, int]]:
    path: list[str | None] = []
    for token in _JSON_TOKEN.finditer(text):
        if token[2]:
            path[-1] = json.loads(token[1])
            yield tuple(key for key in path if key is not None), text.count("\n", 0, token.start()) + 1
        elif token[0] in "{[":
            path.append(None)
        elif token[0] in "}]":
            path.pop()
