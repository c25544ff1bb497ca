"""Makes Triton's interpreter twice as fast."""

from __future__ import annotations

import pytest

from tests.kernels.interpreted import INTERPRETING


@pytest.fixture(scope="session", autouse=INTERPRETING)
def _language_is_patched_once_per_launch():
    """Keeps the interpreter from preparing `triton.language` again for each function that a kernel calls.

    It replaces the language's builtins for the launch, and then, to the same effect, in every call of a
    function of Triton code: half of its time. Once per launch and file of such functions is enough.
    """
    from triton.runtime import interpreter

    patch, launch = interpreter._patch_lang, interpreter.GridExecutor.__call__
    patched: set[int] = set()

    def patch_once(function):
        names = id(function.__globals__)
        if names in patched:
            return interpreter._LangPatchScope()
        patched.add(names)
        return patch(function)

    def launch_anew(*args, **kwargs):
        patched.clear()
        return launch(*args, **kwargs)

    with pytest.MonkeyPatch.context() as changes:
        changes.setattr(interpreter, "_patch_lang", patch_once)
        changes.setattr(interpreter.GridExecutor, "__call__", launch_anew)
        yield
