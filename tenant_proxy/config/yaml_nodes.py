"""Reads YAML into plain values and remembers where each of them stands.

Scalars are read as in YAML 1.2's core schema: only true and false are booleans
(so that `mode: off` is the word off), dates stay text, and there are no tags, no
merge keys and no includes.  A key that is given twice is a problem.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from tenant_proxy.config.problems import Path, Problem, dotted

#: values after aliases are followed; a guard against files that grow exponentially
MAX_VALUES: Final = 2_000_000
MAX_DEPTH: Final = 32

_TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"
_TAG = "tag:yaml.org,2002:"
#: what begins like a word and is none of those that mean something
_WORD = re.compile(r"(?!(?:null|Null|NULL|true|True|TRUE|false|False|FALSE)\Z)[A-Za-z_/]")
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


_STR, _MAP = f"{_TAG}str", f"{_TAG}map"
_TAGS: Final = {yaml.ScalarNode: _STR, yaml.SequenceNode: f"{_TAG}seq", yaml.MappingNode: _MAP}

#: libyaml's is ten times faster, but not in every build of PyYAML
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SafeLoader):  # type: ignore[misc]
    """SafeLoader without implicit types: `_scalar` reads plain scalars."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        return _TAGS[kind]

    # called around each node; libyaml's composer recurses in C, where nothing else would stop it
    def descend_resolver(self, parent: yaml.Node | None, index: Any) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            mark = parent.start_mark if parent is not None else None
            raise yaml.MarkedYAMLError(problem=_TOO_DEEP, problem_mark=mark)

    def ascend_resolver(self) -> None:
        self._depth -= 1


@dataclass(slots=True)
class Document:
    """The values of a file and where they stand."""

    file: str
    data: Any = None
    #: path -> (line, column) of the value, 1-based
    places: dict[Path, tuple[int, int]] = field(default_factory=dict)
    #: path -> (line, column) of the key that the value belongs to
    key_places: dict[Path, tuple[int, int]] = field(default_factory=dict)
    #: path -> text of a scalar as it is written (numbers and booleans that turn out to be meant as text)
    texts: dict[Path, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    #: path -> where in another file that stands which was merged in here
    adopted: dict[Path, tuple[Document, Path]] = field(default_factory=dict)

    def place(self, path: Path, *, key: bool = False) -> tuple[int, int]:
        """Line and column of a value (or its key); of the nearest thing around it when it isn't in the
        file.
        """
        while True:
            found = self.key_places.get(path) if key else None
            found = found or self.places.get(path)
            if found or not path:
                return found or (1, 1)
            path = path[:-1]

    def _origin(self, path: Path) -> tuple[Document, Path]:
        for length in range(len(path), 0, -1) if self.adopted else ():
            if path[:length] in self.adopted:
                document, there = self.adopted[path[:length]]
                return document, (*there, *path[length:])
        return self, path

    def problem(self, path: Path, message: str, *, at_key: bool = False, **more: Any) -> Problem:
        """Records and returns a problem at `path`."""
        origin, there = self._origin(path)
        line, column = origin.place(there, key=at_key)
        found = Problem(origin.file, line, column, dotted(path), message, **more)
        self.problems.append(found)
        return found


def parse(text: str, file: str) -> Document:
    """Reads one YAML document; what is wrong with it is in `problems` (then `data` may be partial)."""
    document = Document(file)
    strange = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if strange is not None:
        line = text.count("\n", 0, strange.start()) + 1
        column = strange.start() - (text.rfind("\n", 0, strange.start()) + 1) + 1
        message = f"invalid YAML: the character U+{ord(strange[0]):04X} is not allowed"
        document.problems.append(Problem(file, line, column, "", message))
        return document
    try:
        root = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        message, hint = _syntax_message(error)
        document.problems.append(Problem(file, line, column, "", f"invalid YAML: {message}", hint=hint))
        return document
    if root is not None:
        _Reader(document).read(root)
    return document


def _syntax_message(error: yaml.MarkedYAMLError) -> tuple[str, str]:
    """(message, hint): PyYAML's own text unless it may quote a value of the file."""
    what = error.problem or "syntax error"
    if "undefined alias" in what:
        hint = 'put a value that begins with * or & into quotes: "*…"'
        return "an alias (*name) without its anchor (&name)", hint
    if "single document" in f"{error.context} {what}":
        return "more than one document (---) in the file", ""
    hint = ""
    if "cannot start any token" in what or "tab character" in what:
        hint = "indent with spaces, not tabs; put a value that begins with @, ` or % into quotes"
    # only punctuation and names of tokens may be quoted
    what = re.sub(r"'([^']*)'", lambda m: m[0] if re.fullmatch(r"\W|<[a-z ]+>", m[1]) else "…", what)
    return what + (f" {error.context}" if error.context else ""), hint


class _Reader:
    def __init__(self, document: Document) -> None:
        self.document = document
        self.values = 0
        self.full = False

    def read(self, root: yaml.Node) -> None:
        self.document.data = self._value(root, ())

    def _value(self, node: yaml.Node, path: Path) -> Any:
        mark = node.start_mark
        self.document.places[path] = (mark.line + 1, mark.column + 1)
        self.values += 1
        if self.values > MAX_VALUES or len(path) > MAX_DEPTH:
            if not self.full:
                self.full = True
                self.document.problem(
                    path, "the file is too large or nested too deep (an alias inside itself?)"
                )
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            self._check_tag(node, path, "seq")
            return [
                self._value(item, (*path, index)) for index, item in enumerate(node.value) if not self.full
            ]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        if node.tag != _MAP:
            self._check_tag(node, path, "map")
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if self.full:
                break
            line, column = key_node.start_mark.line + 1, key_node.start_mark.column + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._problem_at(line, column, path, "a key must be a plain word")
                continue
            key = str(key_node.value)
            inner = (*path, key)
            if key == "<<":
                text = "merge keys (<<) are not supported"
                self._problem_at(
                    line,
                    column,
                    inner,
                    text,
                    "defaults of all tenants belong into the sections pool and policy",
                )
                continue
            if key in result:
                first = self.document.key_places[inner]
                self._problem_at(line, column, inner, f"this key is given twice (first in line {first[0]})")
                continue
            self.document.key_places[inner] = (line, column)
            result[key] = self._value(value_node, inner)
        return result

    def _problem_at(self, line: int, column: int, path: Path, message: str, hint: str = "") -> None:
        self.document.problems.append(
            Problem(self.document.file, line, column, dotted(path), message, hint=hint)
        )

    def _check_tag(self, node: yaml.Node, path: Path, kind: str) -> None:
        if node.tag != _TAG + kind:
            self.document.problem(
                path, "YAML tags (!…) are not supported", hint="put text that begins with ! into quotes"
            )

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        text = str(node.value)
        if node.tag != _STR:
            self._check_tag(node, path, "str")
        if getattr(node, "style", None):  # quoted or block: text as it is
            return text
        self.document.texts[path] = text
        if _WORD.match(text):
            return text
        if _NULL.fullmatch(text):
            return None
        if _BOOL.fullmatch(text):
            return text.lower() == "true"
        if _INT.fullmatch(text):
            return int(text) if len(text) <= 40 else text
        if _FLOAT.fullmatch(text):
            return float(text)
        return text
