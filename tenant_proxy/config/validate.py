"""Turns a document's plain values into a model, and pydantic's errors into `Problem`s of a file.

Pydantic says where in the data an error is; the document knows where in the file that stands; the model's own
annotations say what would have been allowed there.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tenant_proxy.config.problems import Path, did_you_mean, dotted
from tenant_proxy.config.schema import SecretRef
from tenant_proxy.config.yaml_nodes import MAX_DEPTH, Document

M = TypeVar("M", bound=BaseModel)

#: patterns of the schema in words
_PATTERNS: Final[Mapping[str, str]] = {
    r"^[a-z0-9_][a-z0-9_-]{0,62}$": "lower case letters, digits, _ and -, not - first, at most 63",
}

_NOT_A: Final[Mapping[str, str]] = {
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "is too large",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be a mapping (keys and values)",
    "model_type": "must be a mapping (keys and values)",
    "model_attributes_type": "must be a mapping (keys and values)",
}

_SECTION_ERRORS: Final = ("list_type", "dict_type", "model_type", "model_attributes_type")


@dataclass(frozen=True, slots=True)
class Shape:
    """What belongs at some place of the configuration."""

    type: Any
    metadata: tuple[Any, ...] = ()
    #: has no default (or is an entry of a list)
    required: bool = True

    @classmethod
    def of(cls, annotation: Any, metadata: tuple[Any, ...] = (), *, required: bool = True) -> Shape:
        """Unwraps Annotated[…] and … | None."""
        while True:
            origin = get_origin(annotation)
            if origin is Annotated:
                annotation, *more = get_args(annotation)
                metadata += tuple(more)
            elif origin in (Union, types.UnionType):
                inner = [arg for arg in get_args(annotation) if arg is not type(None)]
                if len(inner) != 1:
                    break
                annotation = inner[0]
            else:
                break
        flat: list[Any] = []
        for item in metadata:  # a Field(ge=…) of an Annotated carries the constraints inside
            flat += getattr(item, "metadata", None) or [item]
        return cls(annotation, tuple(flat), required)

    @property
    def model(self) -> type[BaseModel] | None:
        return self.type if isinstance(self.type, type) and issubclass(self.type, BaseModel) else None

    def child(self, part: str | int) -> Shape | None:
        if self.model is not None:
            return _children(self.model).get(part)
        return _entry(self.type)

    def allowed(self) -> tuple[str, ...]:
        """The values (or for a section the keys) that may stand here, or a range in words."""
        if self.model is not None:
            return keys_of(self.model)
        if isinstance(self.type, type) and issubclass(self.type, Enum):
            return tuple(str(member.value) for member in self.type)
        if get_origin(self.type) is Literal:
            return tuple(str(arg) for arg in get_args(self.type))
        if self.type is bool:
            return ("true", "false")
        if self.type in (int, float):
            return self._range()
        return ()

    def _range(self) -> tuple[str, ...]:
        low = high = ""
        for item in self.metadata:
            if isinstance(item, annotated_types.Ge):
                low = f"{item.ge:}"
            elif isinstance(item, annotated_types.Gt):
                low = f"more than {item.gt}"
            elif isinstance(item, annotated_types.Le):
                high = f"{item.le}"
            elif isinstance(item, annotated_types.Lt):
                high = f"less than {item.lt}"
        return (
            (f"{low} to {high}",) if low and high else tuple(filter(None, (low and f"{low} or more", high)))
        )


@functools.cache
def _children(model: type[BaseModel]) -> dict[str | int, Shape]:
    return {
        field.alias or name: Shape.of(field.annotation, tuple(field.metadata), required=field.is_required())
        for name, field in model.model_fields.items()
    }


@functools.cache
def _entry(kind: Any) -> Shape | None:
    """What belongs into a list or dictionary."""
    args = get_args(kind)
    if get_origin(kind) is list and args:
        return Shape.of(args[0])
    if get_origin(kind) is dict and args:
        return Shape.of(args[1])
    return None


def keys_of(model: type[BaseModel]) -> tuple[str, ...]:
    """A section's keys as they are written in the file."""
    return tuple(field.alias or name for name, field in model.model_fields.items())


def shape_at(model: type[BaseModel], path: Path) -> Shape | None:
    shape: Shape | None = Shape(model)
    for part in path:
        shape = shape.child(part) if shape is not None else None
    return shape


def validate(
    model: type[M], document: Document, data: Any, prefix: Path = (), *, failed: set[Path] | None = None
) -> M | None:
    """The model of `data`, which stands at `prefix` of the document; None when it has problems, then
    recorded.

    `data` is mended in place: a section or list whose entries are all commented out (null) counts as
    not given, and a number or boolean where text belongs (a tenant named 2024, a password 0042) is taken
    as it is written.  `failed` gets the paths of all that is wrong.
    """
    _spell_booleans(model, data)
    while True:
        try:
            return model.model_validate(data)
        except ValidationError as error:
            details = error.errors(include_url=False)
        mended = [detail for detail in details if _mend(document, data, prefix, detail)]
        if not mended:
            break
    for detail in details:
        _report(model, document, prefix, detail)
        if failed is not None:
            failed.add((*prefix, *detail["loc"]))
    return None


def _spell_booleans(kind: Any, data: Any) -> None:
    """Makes true and false words where a number belongs: pydantic would take them for 1 and 0."""
    inside = _with_numbers(kind)
    if isinstance(data, dict):
        parts = list(inside.items()) if isinstance(inside, dict) else [(part, inside) for part in data]
        values = [(part, inner, data[part]) for part, inner in parts if part in data]
    elif isinstance(data, list) and not isinstance(inside, dict):
        values = [(index, inside, value) for index, value in enumerate(data)]
    else:
        return
    for part, inner, value in values:
        if inner in (int, float):
            if value is True or value is False:
                data[part] = str(value).lower()
        elif inner is not None:
            _spell_booleans(inner, value)


@functools.cache
def _with_numbers(kind: Any) -> dict[str | int, Any] | Any:
    """What in it may be a number or have some in it, which is little where there is much: a section's keys,
    or of a list or dictionary what its entries are, None if these have none.
    """
    shape = Shape(kind)
    if shape.model is not None:
        return {part: one.type for part, one in _children(shape.model).items() if _has_numbers(one.type)}
    entry = _entry(kind)
    return entry.type if entry is not None and _has_numbers(entry.type) else None


def _has_numbers(kind: Any) -> bool:
    return kind in (int, float) or bool(_with_numbers(kind))


def _mend(document: Document, data: Any, prefix: Path, detail: ErrorDetails) -> bool:
    path: Path = detail["loc"]
    if not path:
        return False
    parent: Any = data
    for part in path[:-1]:
        try:
            parent = parent[part]
        except (KeyError, IndexError, TypeError):
            return False
    last = path[-1]
    if not isinstance(parent, dict | list) or (isinstance(parent, dict) and last not in parent):
        return False
    value = parent[last]  # type: ignore[index]
    if detail["type"] in _SECTION_ERRORS and value is None and isinstance(parent, dict):
        del parent[last]
        return True
    text = document.text((*prefix, *path))
    if detail["type"] == "string_type" and isinstance(value, int | float) and text is not None:
        parent[last] = text  # type: ignore[index]
        return True
    return False


def _report(model: type[BaseModel], document: Document, prefix: Path, detail: ErrorDetails) -> None:
    local: Path = detail["loc"]
    path = (*prefix, *local)
    kind = detail["type"]
    context = detail.get("ctx", {})
    parent = shape_at(model, local[:-1]) if local else None
    if kind == "missing":
        document.problem(path[:-1], f'the key "{local[-1]}" is missing', hint=_what_is(model, local))
    elif kind == "extra_forbidden":
        allowed = parent.allowed() if parent else ()
        if parent is not None and parent.model is SecretRef:
            # a secret written where its source belongs
            line = document.place(path, key=True)
            document.problem(
                path[:-1], "unknown key", allowed=allowed, hint=f"the key stands in line {line[0]}"
            )
            return
        hint = did_you_mean(str(local[-1]), allowed)
        document.problem(path, f'unknown key "{local[-1]}"', at_key=True, allowed=allowed, hint=hint)
    elif kind == "value_error":
        document.problem(path, str(context.get("error", detail["msg"])))
    else:
        shape = shape_at(model, local)
        allowed = shape.allowed() if shape else ()
        document.problem(path, _message(detail, context), allowed=allowed, hint=_hint(detail, shape, allowed))


def _message(detail: ErrorDetails, context: Mapping[str, Any]) -> str:
    kind, value = detail["type"], detail["input"]
    if kind in _NOT_A:
        return _NOT_A[kind] + (", not null" if value is None else "")
    shown = f'"{value}"' if isinstance(value, str) else str(value)
    if kind in ("enum", "literal_error"):
        return f"{shown} is not a value of this key"
    if kind in ("greater_than_equal", "greater_than", "less_than_equal", "less_than"):
        return f"{shown} is out of range"
    if kind == "string_pattern_mismatch":
        return f"{shown} is not a valid name"
    if kind == "string_too_long":
        return f"is longer than {context.get('max_length')} characters"
    if kind == "string_too_short":
        return "must not be empty"
    if kind == "too_short":
        return f"needs at least {context.get('min_length')} entry"
    return detail["msg"][0].lower() + detail["msg"][1:]


def _hint(detail: ErrorDetails, shape: Shape | None, allowed: tuple[str, ...]) -> str:
    if detail["type"] in ("enum", "literal_error") and isinstance(detail["input"], str):
        return did_you_mean(detail["input"], allowed)
    if detail["type"] == "string_pattern_mismatch":
        pattern = str(detail.get("ctx", {}).get("pattern", ""))
        return _PATTERNS.get(pattern, f"it must match {pattern}")
    if shape is not None and shape.model is SecretRef:
        return "e.g. {env: NAME_OF_A_VARIABLE} or {file: PATH}"
    return ""


def _what_is(model: type[BaseModel], path: Path) -> str:
    shape = shape_at(model, path)
    allowed = shape.allowed() if shape else ()
    return f"allowed: {', '.join(allowed)}" if allowed else ""


# --- going on in spite of problems -----------------------------------------------

#: part of every value that stands in for one that could not be used
STAND_IN: Final = "stand_in_for_a_bad_value"


def stand_in(model: type[M], data: Any) -> M | None:
    """A model of `data` with what is wrong left out, or replaced where it is required; None if that fails.

    Only for finding further problems: a check of names and files can then go on.  `data` is changed.
    """
    for _ in range(MAX_DEPTH):
        try:
            return model.model_validate(data)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                if not _replace(model, data, detail["loc"]):
                    return None
    return None


def _replace(model: type[BaseModel], data: Any, path: Path) -> bool:
    """Takes the value at `path` away, or puts another one there if it is required; False if it can't."""
    shape = shape_at(model, path)
    try:
        parent = data
        for part in path[:-1]:
            parent = parent[part]
        if shape is None or (shape.model is None and not shape.required):
            del parent[path[-1]]
        else:
            parent[path[-1]] = _any_value(shape, dotted(path))
    except (IndexError, KeyError, TypeError):
        return False
    return True


def _any_value(shape: Shape, key: str) -> Any:
    allowed = shape.allowed()
    if shape.model is SecretRef:
        return {"value": STAND_IN}
    if shape.model is not None or get_origin(shape.type) is dict:
        return {}
    if get_origin(shape.type) is list:
        return []
    if shape.type is str:  # names must differ, and tenants' names are lower case
        return f"{STAND_IN}_" + "".join(char if char.isalnum() else "_" for char in key.lower())
    return allowed[0] if allowed else None
