"""Types and shapes are checked at the first calls of each function in each test, and not at all later ones.

jaxtyping's own wrapper costs some 50 microseconds a call. Numerical code calls small functions ten thousands of times,
and half of a test's time went into the same checks of the same shapes.
"""

import functools
import inspect
from collections.abc import Callable
from types import CodeType
from typing import Any

import jaxtyping

_CHECKED_CALLS = 3
_jaxtyped = jaxtyping.jaxtyped
_tests_begun = [0]


def begin_test() -> None:
    """From here on, each function's calls are counted anew."""
    _tests_begun[0] += 1


def install(packages: list[str]) -> None:
    """Check what is imported from `packages` after this call."""
    jaxtyping.jaxtyped = jaxtyped  # type: ignore[assignment] # what its import hook puts before each function
    jaxtyping.install_import_hook(packages, "beartype.beartype")


def jaxtyped(fn: Any = None, *, typechecker: Any) -> Any:
    """As jaxtyping's decorator, for the first calls in each test."""
    if fn is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    if inspect.isclass(fn):
        before = fn.__init__
        _jaxtyped(fn, typechecker=typechecker)
        if fn.__init__ is not before:
            checked = fn.__init__
            fn.__init__ = _at_first(before, lambda: checked, _Calls())
        return fn
    if not inspect.isfunction(fn):
        return _jaxtyped(fn, typechecker=typechecker)
    if "<locals>" not in fn.__qualname__:
        return _at_first(fn, lambda: _jaxtyped(fn, typechecker=typechecker), _Calls())
    # Made anew by each call of the function around it: what is compiled to check one would be compiled each time.
    calls = _local.setdefault(fn.__code__, _Calls())
    return _at_first(fn, lambda: _jaxtyped(fn, typechecker=typechecker), calls) if calls.are_checked() else fn


class _Calls:
    """How often a function was called in the current test."""

    def __init__(self) -> None:
        self._test = -1
        self._count = 0

    def are_checked(self) -> bool:
        """Whether the next call is."""
        if self._test != _tests_begun[0]:
            self._test, self._count = _tests_begun[0], 0
        return self._count < _CHECKED_CALLS

    def add(self) -> None:
        """One call more."""
        self._count += 1


_local: dict[CodeType, _Calls] = {}


def _at_first(plain: Callable[..., Any], make_checked: Callable[[], Callable[..., Any]], calls: _Calls) -> Any:
    checked: Callable[..., Any] | None = None

    @functools.wraps(plain)
    def called(*args: Any, **kwargs: Any) -> Any:
        nonlocal checked
        if not calls.are_checked():
            return plain(*args, **kwargs)
        calls.add()
        if checked is None:
            # Not before it is called: most functions are not, in one worker's share of the tests.
            checked = make_checked()
        return checked(*args, **kwargs)

    return called
