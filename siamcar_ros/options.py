"""Options from YAML and the command line: dataclasses are filled, values converted and checked."""

from __future__ import annotations

import dataclasses
import math
import os
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from siamcar_ros.resources import refuse_unknown, shortened

Options = TypeVar("Options")
_KINDS = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}


class Range(NamedTuple):
    """Annotates a number: ``Annotated[float, Range(0, 1)]`` is refused outside [0, 1]."""

    low: float
    high: float = math.inf
    above: bool = False  # whether `low` itself is refused

    def allows(self, value: float) -> bool:
        """Whether a value lies in the range; NaN does not."""
        return self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"above {self.low:g}" if self.above else f"{self.low:g} or more"
        return f"from {self.low:g} to {self.high:g}"


def setting(default: Any, description: str, **facts: Any) -> Any:
    """A field of a dataclass whose metadata documents it, as parameters of nodes need it.

    Facts are "range": (lowest, highest), both allowed; "choices": the words that are allowed;
    "read_only": whether it is fixed once it is set.
    """
    return dataclasses.field(default=default, metadata={"description": description, **facts})


def filled(kind: type[Options], content: Any, prefix: str) -> Options:
    """A dataclass from a mapping; its fields that are dataclasses, from the mappings in it.

    In messages `prefix`, as "optimizer.", goes before the name of a field.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"{prefix.rstrip('.')} must hold keys, not {shortened(content)}")
    hints = typing.get_type_hints(kind, include_extras=True)
    refuse_unknown([f"{prefix}{key}" for key in content], [prefix + name for name in hints], "key")
    values: dict[str, Any] = {}
    for name, value in content.items():
        hint, key = hints[name], prefix + name
        if dataclasses.is_dataclass(hint):
            section = typing.cast(type, hint)
            values[name] = filled(section, {} if value is None else value, f"{key}.")
        else:
            values[name] = converted(value, hint, key)
    return kind(**values)


def converted(value: Any, hint: Any, key: str) -> Any:
    """Convert a value to its annotated type: YAML gives 1e-3 as text, 5 for 5.0, lists for tuples.

    In paths ``~`` and ``$VARIABLES`` are expanded. `key` is what the message calls the value.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        kind, limits = arguments
        found = converted(value, kind, key)
        if not limits.allows(found):
            raise ValueError(f"{key} is {shortened(value)}; it must be {limits}")
        return found
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"{key} is {shortened(value)}; it must be {' or '.join(arguments)}")
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return converted(value, next(a for a in arguments if a is not type(None)), key)
    if origin is tuple and isinstance(value, list | tuple):
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(kinds) == len(value):
            return tuple(converted(v, k, key) for v, k in zip(value, kinds, strict=True))
    if origin is dict and isinstance(value, dict):
        return value
    if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            pass
        else:
            if not math.isfinite(number):
                raise ValueError(f"{key} is {shortened(value)}; it must be finite")
            return number
    elif hint is Path and isinstance(value, str | Path):
        return Path(os.path.expandvars(value)).expanduser()
    elif isinstance(hint, type) and type(value) is hint:
        return value
    expected = _KINDS.get(hint) or f"of the kind {getattr(hint, '__name__', hint)}"
    raise ValueError(f"{key} is {shortened(value)}; it must be {expected}")


def check_choice(name: str, value: object, choices: Iterable[object]) -> None:
    """Raise ValueError if the value of `name` is none of `choices`."""
    known = tuple(choices)
    if value not in known:
        raise ValueError(f"{name} is one of {', '.join(map(str, known))}, not {shortened(value)}")


def parse_numbers(what: str, text: str, count: int) -> tuple[float, ...]:
    """Read finite numbers as a person types them, "1,0.5,-2"; ValueError if there are not `count`.

    `what` is what the message calls them.
    """
    try:
        found = tuple(map(float, text.split(",")))
    except ValueError:
        found = ()
    if len(found) != count or not all(map(math.isfinite, found)):
        raise ValueError(f"{what} is {count} numbers with commas between them, not {text!r:.60}")
    return found


def assignments(texts: Iterable[str], option: str) -> dict[str, str]:
    """Split texts KEY=VALUE, as `option` takes them; ValueError where one has another form."""
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key.strip() and equals):
            raise ValueError(f"{option} takes KEY=VALUE, not {text!r}")
        pairs[key.strip()] = value
    return pairs
