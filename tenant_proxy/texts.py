"""The texts under the keys of models, for JSON schemas and references alone.

pydantic would read them while classes are made, which is a third of the time that a command takes to start.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

from pydantic import BaseModel


@cache
def texts_of(model: type[BaseModel]) -> dict[str, str]:
    """Of each field that has one, with those that it has from the models it is made of."""
    found: dict[str, str] = {}
    for one in reversed(model.__mro__):
        if issubclass(one, BaseModel) and one is not BaseModel:
            found |= _in_module(one.__module__).get(one.__qualname__, {})
    return found


def describe(schemas: dict[str, dict[str, Any]], base: type[BaseModel]) -> None:
    """Puts the texts into JSON schemas by models' names: of `base` and all that are made of it."""
    models = {model.__name__: model for model in (base, *_heirs(base))}
    for name, schema in schemas.items():
        # of a model that is not the same as input and as output there are two
        model = models.get(name.removesuffix("-Input").removesuffix("-Output"))
        if model is None:
            continue
        texts = texts_of(model)
        for key, field in model.model_fields.items():
            found = schema.get("properties", {}).get(field.alias or key)
            if found is not None and key in texts and "description" not in found:
                whole = dict(sorted((found | {"description": texts[key]}).items()))
                found.clear()
                found.update(whole)


def _heirs(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for heir in model.__subclasses__():
        yield heir
        yield from _heirs(heir)


@cache
def _in_module(name: str) -> dict[str, dict[str, str]]:
    """class -> field -> text: a string that stands below an annotated name."""
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(sys.modules[name])).body:
        if not isinstance(node, ast.ClassDef):
            continue
        texts = found.setdefault(node.name, {})
        for above, below in zip(node.body, node.body[1:], strict=False):
            if isinstance(above, ast.AnnAssign) and isinstance(above.target, ast.Name):
                match below:
                    case ast.Expr(value=ast.Constant(value=str(text))):
                        texts[above.target.id] = inspect.cleandoc(text)
    return found
