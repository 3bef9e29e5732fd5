"""numpy, loaded by the first thing that computes: a program that waits for a study needs none of its ten megabytes.

A coordinator between studies and the agent of a hospital run for months, and the modules that describe vectors are
loaded there long before a vector exists. So they take their numpy from here:

    from privacy.lazy_numpy import np

and name its types in annotations only, which nobody evaluates (`from __future__ import annotations`). Whatever uses
`np` when a module is imported loads numpy then, and every idle program pays: tests/unit/test_idle_programs.py
notices.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
else:

    class _Numpy:
        """numpy's names, each looked up there once: from the second time on this costs what a module costs."""

        def __getattr__(self, name: str) -> Any:
            import numpy  # noqa: ICN001, PLC0415 - that is the point

            found = getattr(numpy, name)
            setattr(self, name, found)
            return found

    np = _Numpy()

__all__ = ["np"]
