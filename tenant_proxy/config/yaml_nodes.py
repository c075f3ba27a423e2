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
_Parser: Any = yaml.cyaml.CParser if yaml.__with_libyaml__ else yaml.SafeLoader  # type: ignore[attr-defined]


class _Loader(_Parser):  # type: ignore[misc]
    """Gives nodes without implicit types: `_scalar` reads plain scalars."""

    __slots__ = ("_depth",)

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
    """The values of a file, and where they stand: that is looked up in what YAML has made of the text, as
    most files have no problems.
    """

    file: str
    data: Any = None
    root: yaml.Node | None = None
    problems: list[Problem] = field(default_factory=list)
    #: path -> where in another file that stands which was merged in here
    adopted: dict[Path, tuple[Document, Path]] = field(default_factory=dict)

    def has(self, path: Path) -> bool:
        """Whether the file has something there."""
        return self.root is not None and len(_way(self.root, path)) == len(path) + 1

    def place(self, path: Path, *, key: bool = False) -> tuple[int, int]:
        """Line and column of a value (or its key); of the nearest thing around it when it isn't in the
        file.
        """
        if self.root is None:
            return (1, 1)
        key_node, value_node = _way(self.root, path)[-1]
        node = value_node if key_node is None or not key else key_node
        return node.start_mark.line + 1, node.start_mark.column + 1

    def text(self, path: Path) -> str | None:
        """A scalar without quotes as it is written, for numbers and booleans that are meant as text."""
        if not self.has(path):
            return None
        assert self.root is not None
        node = _way(self.root, path)[-1][1]
        return str(node.value) if isinstance(node, yaml.ScalarNode) and not node.style else None

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


def _way(root: yaml.Node, path: Path) -> list[tuple[yaml.Node | None, yaml.Node]]:
    """The nodes on the way to `path`, each with that of its key if it has one; ends early where there are no
    more.
    """
    way: list[tuple[yaml.Node | None, yaml.Node]] = [(None, root)]
    node = root
    for part in path:
        found: tuple[yaml.Node | None, yaml.Node] | None = None
        if isinstance(node, yaml.MappingNode):
            # of a key that is given twice the first counts
            found = next((pair for pair in node.value if _is_key(pair[0], part)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            found = None, node.value[part]
        if found is None:
            break
        way.append(found)
        node = found[1]
    return way


def _is_key(node: yaml.Node, part: str | int) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.value == part


class _Reader:
    def __init__(self, document: Document) -> None:
        self.document = document
        self.values = 0
        self.full = False

    def read(self, root: yaml.Node) -> None:
        self.document.root = root
        self.document.data = self._value(root, (), ())

    def _value(self, node: yaml.Node, around: Path, parts: Path) -> Any:
        """`parts` is the last of its path, if it has one: the paths of scalars, most of all, are seldom
        needed.
        """
        if type(node) is yaml.ScalarNode:
            return self._scalar(node, around, parts)
        path = (*around, *parts)
        self.values += 1 + len(node.value)
        if self.values > MAX_VALUES or len(path) > MAX_DEPTH:
            if not self.full:
                self.full = True
                self.document.problem(
                    path, "the file is too large or nested too deep (an alias inside itself?)"
                )
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        self._check_tag(node, path, "seq")
        return [self._value(item, path, (index,)) for index, item in enumerate(node.value) if not self.full]

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        if node.tag != _MAP:
            self._check_tag(node, path, "map")
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if self.full:
                break
            if type(key_node) is not yaml.ScalarNode:
                self._problem_at(key_node, path, "a key must be a plain word")
                continue
            key = key_node.value
            if key == "<<":
                text = "merge keys (<<) are not supported"
                hint = "defaults of all tenants belong into the sections pool and policy"
                self._problem_at(key_node, (*path, key), text, hint)
                continue
            if key in result:
                first = self.document.place((*path, key), key=True)
                text = f"this key is given twice (first in line {first[0]})"
                self._problem_at(key_node, (*path, key), text)
                continue
            result[key] = self._value(value_node, path, (key,))
        return result

    def _problem_at(self, node: yaml.Node, path: Path, message: str, hint: str = "") -> None:
        line, column = node.start_mark.line + 1, node.start_mark.column + 1
        self.document.problems.append(
            Problem(self.document.file, line, column, dotted(path), message, hint=hint)
        )

    def _check_tag(self, node: yaml.Node, path: Path, kind: str) -> None:
        if node.tag != _TAG + kind:
            self.document.problem(
                path, "YAML tags (!…) are not supported", hint="put text that begins with ! into quotes"
            )

    def _scalar(self, node: yaml.ScalarNode, around: Path, parts: Path) -> Any:
        text = node.value
        if node.tag != _STR:
            self._check_tag(node, (*around, *parts), "str")
        if node.style:  # quoted or block: text as it is
            return text
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
