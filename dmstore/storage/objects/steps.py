"""Steps of any kind: generators that yield operations and are sent their results."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar

T = TypeVar("T")


def drive(steps: Generator[Any, Any, T], perform: Callable[[Any], Any]) -> T:
    """Run steps to their end: perform each operation, send its result or throw its error."""
    try:
        operation = next(steps)
        while True:
            try:
                result = perform(operation)
            except BaseException as error:  # noqa: BLE001 - the steps decide what an error means
                operation = steps.throw(error)
            else:
                operation = steps.send(result)
    except StopIteration as stop:
        outcome: T = stop.value
        return outcome
