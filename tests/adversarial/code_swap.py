"""A changed source file, put into a process that has loaded the unchanged one: functions get the changed code.

To import a mutated copy of our packages takes a second, and more where torch is; to give a function other code takes
none. The function object stays: whoever imported it, holds it as a method or has wrapped it calls the changed code from
then on.

It is not possible where a difference lies in what runs when the module is loaded: a constant, a decorator, a default, a
class's own statements. Then `swaps` answers None, and the file has to be loaded afresh.
"""

import gc
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import CodeType, FunctionType

Place = tuple[str, str, int]  # the file, the qualified name, the first line
RUN_BY_THEIR_OWNER = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")


def functions_below(folder: Path) -> dict[Place, list[FunctionType]]:
    """Every function that was made from a file below the folder, by where its code stands."""
    found: dict[Place, list[FunctionType]] = {}
    for thing in gc.get_objects():
        if type(thing) is FunctionType and thing.__code__.co_filename.startswith(f"{folder}/"):
            found.setdefault(_place(thing.__code__), []).append(thing)
    return found


def swaps(file: Path, old: str, new: str) -> list[tuple[CodeType, CodeType]] | None:
    """Which code takes which one's place, for a file's old and new text; None if that is not all that differs."""
    try:
        return list(_differences(compile(old, str(file), "exec"), compile(new, str(file), "exec"), runs_at_import=True))
    except _OtherThanFunctions:
        return None


def swap(made: dict[Place, list[FunctionType]], codes: Iterable[tuple[CodeType, CodeType]]) -> int:
    """Give the functions that run the old codes the new ones; returns how many functions were changed."""
    changed = 0
    for old, new in codes:
        for function in made.get(_place(old), []):
            if function.__code__ == old:  # otherwise the file has changed since it was loaded
                function.__code__ = new
                changed += 1
    return changed


class _OtherThanFunctions(Exception):
    pass


def _place(code: CodeType) -> Place:
    return code.co_filename, code.co_qualname, code.co_firstlineno


def _differences(old: CodeType, new: CodeType, *, runs_at_import: bool) -> Iterator[tuple[CodeType, CodeType]]:
    """The pairs of functions that differ; what a function has within itself comes with it."""
    if not runs_at_import:
        if len(old.co_freevars) != len(new.co_freevars):
            raise _OtherThanFunctions  # a function cannot be given other variables of its surroundings
        if old != new:
            yield old, new
        return
    if _itself(old) != _itself(new):
        raise _OtherThanFunctions
    inner = [[part for part in code.co_consts if isinstance(part, CodeType)] for code in (old, new)]
    for before, after in zip(*inner, strict=True):
        own = _is_class(before) or before.co_name in RUN_BY_THEIR_OWNER
        yield from _differences(before, after, runs_at_import=own)


def _itself(code: CodeType) -> tuple[object, ...]:
    """What a code does, without its lines, and of the functions it makes only that it makes them."""
    constants = tuple(
        part.co_qualname if isinstance(part, CodeType) else (type(part).__name__, repr(part)) for part in code.co_consts
    )
    return code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars


def _is_class(code: CodeType) -> bool:
    """A class's own statements keep their names in a dictionary, a function's do not."""
    return not code.co_flags & 0x2  # inspect.CO_NEWLOCALS
