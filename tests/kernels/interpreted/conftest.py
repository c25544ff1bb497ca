"""Makes Triton's interpreter several times as fast, without a change of what it computes."""

from __future__ import annotations

import dataclasses
import math
import operator
from functools import cache

import pytest

from tests.kernels.interpreted import INTERPRETING


@pytest.fixture(scope="session", autouse=INTERPRETING)
def _language_is_patched_once():
    """Keeps the interpreter from preparing `triton.language` again for each launch and each function.

    It replaces the language's builtins for the launch, and then, to the same effect, in every call of a
    function of Triton code. Once per file of such functions is enough, since nothing else here uses them.
    """
    from triton.runtime import interpreter

    patch = interpreter._patch_lang
    scopes = {}

    def patch_once(function):
        names = id(function.__globals__)
        if names not in scopes:
            scopes[names] = patch(function)
        return interpreter._LangPatchScope()

    with pytest.MonkeyPatch.context() as changes:
        changes.setattr(interpreter, "_patch_lang", patch_once)
        yield
    for scope in reversed(scopes.values()):
        scope.restore()


@pytest.fixture(scope="session", autouse=INTERPRETING)
def _overflow_is_not_looked_for_in_vain():
    """Keeps the interpreter from repeating all arithmetic of integers in 64 bits.

    It would tell of an overflow only if `debug` was set as well; without it, what it finds is dropped.
    """
    from triton.runtime.interpreter import interpreter_builder

    assert not interpreter_builder.options.debug
    with pytest.MonkeyPatch.context() as changes:
        options = dataclasses.replace(interpreter_builder.options, sanitize_overflow=False)
        changes.setattr(interpreter_builder, "options", options)
        yield


@pytest.fixture(scope="session", autouse=INTERPRETING)
def _types_are_made_once():
    """Remembers what the interpreter derives from a type or a shape anew with each operation.

    That takes several times as long as NumPy's arithmetic: there are few types and shapes, and thousands of
    operations per program.
    """
    import triton.language as tl
    from triton.language.semantic import TritonSemantic
    from triton.runtime import interpreter

    core = tl.core
    make_block, broadcast = core.block_type.__init__, TritonSemantic.broadcast_impl_value

    @cache
    def sizes(*shape):
        """A tensor's number of elements and shape."""
        return core.constexpr(math.prod(shape)), core.tuple([core.constexpr(size) for size in shape])

    blocks = {}

    def init_block(self, element_ty, shape):
        key = element_ty.name, *map(operator.index, shape)
        if key not in blocks:
            make_block(self, element_ty, shape)
            blocks[key] = vars(self) | {"sizes": sizes(*key[1:])}
        vars(self).update(blocks[key], element_ty=element_ty)

    def init_tensor(self, handle, type):
        self.handle, self.type, self.dtype = handle, type, type.scalar
        self.numel, self.shape = type.sizes if type.is_block() else sizes()

    def broadcast_unless_alike(self, lhs, rhs):
        """Shapes that are equal are one object."""
        return (lhs, rhs) if lhs.shape is rhs.shape else broadcast(self, lhs, rhs)

    find_numpy_type = interpreter._get_np_dtype
    numpy_types = {}

    def numpy_type(of):
        scalar = of.scalar
        name = "pointer" if scalar.is_ptr() else scalar.name
        if name not in numpy_types:
            numpy_types[name] = find_numpy_type(of)
        return numpy_types[name]

    with pytest.MonkeyPatch.context() as changes:
        changes.setattr(core.block_type, "__init__", init_block)
        changes.setattr(core.tensor, "__init__", init_tensor)
        changes.setattr(TritonSemantic, "broadcast_impl_value", broadcast_unless_alike)
        changes.setattr(interpreter, "_get_np_dtype", numpy_type)
        yield


@pytest.fixture(scope="session", autouse=INTERPRETING)
def _reductions_go_by_slices():
    """Has the interpreter reduce along an axis slice by slice, in the order in which it goes by elements."""
    from triton.runtime import interpreter

    by_elements = interpreter.ReduceOps.generic_reduce

    def by_slices(self, input):
        if self.axis is None or self.keep_dims:
            return by_elements(self, input)

        def along(number):
            return [self.to_tensor(t.handle.data.take(number, self.axis), t.dtype) for t in input]

        totals = along(0)
        for number in range(1, input[0].handle.data.shape[self.axis]):
            totals = self.combine_fn.fn(*totals, *along(number))
            totals = totals if isinstance(totals, tuple) else (totals,)
        return totals

    with pytest.MonkeyPatch.context() as changes:
        changes.setattr(interpreter.ReduceOps, "generic_reduce", by_slices)
        yield
