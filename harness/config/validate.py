"""From a section of the document to a validated model, with every mistake at its own line."""

from __future__ import annotations

import json
import re
import types
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from harness.config.problems import Problems, did_you_mean, one_of, shown, unknown_key
from harness.config.yaml_loader import Mark, Node

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

ModelT = TypeVar("ModelT", bound=BaseModel)
Location = tuple[int | str, ...]


def validate(model: type[ModelT], node: Node, problems: Problems) -> ModelT | None:
    """Return the `model` that a mapping describes, or None with its mistakes added to `problems`.

    Types are strict: a string is no number, 1 is not true, 200.0 is no integer (3 is a fine float).
    """
    if not isinstance(node.value, dict):
        problems.add(node.mark, f"expected a mapping, got {shown(node.plain())}")
        return None
    try:
        # as JSON, because only there does strict mode take a list for a tuple
        return model.model_validate_json(json.dumps(node.plain()), strict=True)
    except ValidationError as error:
        _report(model, node, error.errors(include_url=False), problems)
        return None


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the models that a field's annotation may hold directly (itself, or members of a union)."""
    return [arm for arm in arms(annotation) if isinstance(arm, type) and issubclass(arm, BaseModel)]


def arms(annotation: Any) -> list[Any]:
    """Return the members of a union, or the annotation itself, `Annotated` and `None` taken off."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return arms(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [arm for member in get_args(annotation) for arm in arms(member)]
    return [] if annotation is type(None) else [annotation]


def _report(model: type[BaseModel], node: Node, errors: Sequence[ErrorDetails], problems: Problems) -> None:
    """Add one problem per place; a value that fits no member of a union is one mistake, not several."""
    places: dict[Mark, list[str]] = {}
    for error in errors:
        if error["type"] == "too_short" and _spoilt_inside(error["loc"], errors):
            continue
        mark = _locate(node, error["loc"], missing=error["type"] == "missing")
        message = _message(model, error)
        messages = places.setdefault(mark, [])
        if message not in messages:
            messages.append(message)
    for mark, messages in places.items():
        problems.add(mark, _joined(messages))


def _spoilt_inside(loc: Location, errors: Sequence[ErrorDetails]) -> bool:
    """Return whether entries of the list at `loc` are wrong; pydantic counts only those that are not."""
    return any(len(error["loc"]) > len(loc) and error["loc"][: len(loc)] == loc for error in errors)


def _locate(node: Node, loc: Location, *, missing: bool) -> Mark:
    """Return where the entry at `loc` stands.

    Pydantic puts the tags of unions into `loc`; they are written nowhere in the document and are passed over.
    """
    mark = node.mark
    for part in loc:
        if isinstance(part, str) and part in node.entries:
            key, node = node.keys[part], node.entries[part]
            mark = key if node.entries or node.items else node.mark._replace(key=key.key)
        elif isinstance(part, int) and part < len(node.items):
            node = node.items[part]
            mark = node.mark
    if missing:
        mark = mark._replace(key=f"{mark.key}.{loc[-1]}" if mark.key else str(loc[-1]))
    return mark


def _message(model: type[BaseModel], error: ErrorDetails) -> str:
    loc, kind, value, context = error["loc"], error["type"], error["input"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return unknown_key(str(loc[-1]), _fields_at(model, loc[:-1]))
    if kind in ("missing", "union_tag_not_found"):
        return f"the key {'name' if kind != 'missing' else loc[-1]!r} is required, and missing"
    if kind in ("union_tag_invalid", "literal_error") and isinstance(context.get("tag", value), str):
        expected = context.get("expected_tags", context.get("expected"))
        return _expected_one_of(context.get("tag", value), str(expected))
    if kind in ("value_error", "assertion_error"):
        return str(context["error"])
    if length := re.search(r"should have (at (?:least|most) \d+ \w+).*?not (\d+)", error["msg"]):
        return f"expected {length[1]}, got {length[2]}"
    return f"{_plain_words(error['msg'])}, got {shown(value)}"


def _expected_one_of(got: str, expected: str) -> str:
    names = re.findall(r"'([^']*)'", expected)
    return f"expected {one_of(names)}, got {got!r}{did_you_mean(got, names)}"


def _plain_words(message: str) -> str:
    """Return pydantic's sentence in the words of a matrix."""
    for theirs, ours in (
        ("Input should be", "expected"),
        ("an object", "a mapping"),
        ("a valid array", "a list"),
        ("a valid boolean", "true or false"),
        ("a valid integer", "an integer"),
        ("a valid ", "a "),
        ("greater than or equal to", "a value >="),
        ("less than or equal to", "a value <="),
        ("greater than", "a value >"),
        ("less than", "a value <"),
    ):
        message = message.replace(theirs, ours)
    return message


def _joined(messages: list[str]) -> str:
    """Return one sentence from what the members of a union expected of the same value."""
    parts = [re.fullmatch(r"expected (.+), got (.+)", message) for message in messages]
    wants = [part[1] for part in parts if part]
    if len(wants) < len(messages) or len(wants) < 2:
        return "; ".join(messages)
    return f"expected {one_of(wants)}, got {parts[0][2] if parts[0] else ''}"


def _fields_at(model: type[BaseModel], loc: Location) -> list[str]:
    """Return the keys allowed at `loc`, which names union members by their tag."""
    models = [model]
    for part in loc:
        if isinstance(part, int):
            continue
        deeper = [
            nested
            for each in models
            if part in each.model_fields
            for nested in models_in(_item(each.model_fields[part].annotation))
        ]
        models = deeper or [each for each in models if _tag(each) == part] or models
    return sorted({name for each in models for name in each.model_fields} - {"name"})


def _item(annotation: Any) -> Any:
    """Return what a list or tuple holds, else the annotation itself."""
    if get_origin(annotation) in (list, tuple, frozenset, Sequence):
        return get_args(annotation)[0]
    if get_origin(annotation) in (dict, Mapping):
        return get_args(annotation)[1]
    return annotation


def _tag(model: type[BaseModel]) -> object:
    return model.model_fields["name"].default if "name" in model.model_fields else model.__name__
