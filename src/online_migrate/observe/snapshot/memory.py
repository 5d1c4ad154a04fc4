"""What a caller that reads the same run again and again need not read or make again."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar, cast

_T = TypeVar("_T")


class Memory:
    """The last value of each name, valid as long as its mark is the same.  For one reader, not for several
    threads.
    """

    def __init__(self) -> None:
        self._kept: dict[Hashable, tuple[object, object]] = {}
        self._true: set[Hashable] = set()

    def get(self, name: Hashable, mark: object, make: Callable[[], _T]) -> _T:
        """The value that ``make`` returned when the mark was the same, else what it returns now."""
        kept = self._kept.get(name)
        if kept is not None and kept[0] == mark:
            return cast("_T", kept[1])
        value = make()
        self._kept[name] = (mark, value)
        return value

    def is_true(self, name: Hashable, ask: Callable[[], bool]) -> bool:
        """Whether ``ask`` returned true; once it did, it is not called again."""
        if name not in self._true and ask():
            self._true.add(name)
        return name in self._true
