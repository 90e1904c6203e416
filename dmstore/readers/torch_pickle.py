"""What ``data.pkl`` of a PyTorch file says, read without running any of it.

A pickle is a program. This module walks its opcodes and interprets only those that ``torch.save``
writes for tensors in dictionaries; it calls nothing, imports nothing, and refuses all else by name.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from typing import Any

from dmstore.errors import InputError
from dmstore.readers import torch_numpy

# Storage classes to NumPy's letters; bfloat16 has none and is read as its 16 bits.
STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_TENSOR = ("torch._utils", "_rebuild_tensor_v2")
_PARAMETER = ("torch._utils", "_rebuild_parameter")
_ORDERED = ("collections", "OrderedDict")
_MOST_DIMS = 64
# Tensors that are no block of numbers, and numbers that are not taken, with the words for them.
_OTHER_TENSORS = {
    "_rebuild_sparse_tensor": "a sparse tensor; save tensor.to_dense()",
    "_rebuild_sparse_csr_tensor": "a sparse tensor; save tensor.to_dense()",
    "_rebuild_nested_tensor": "a nested tensor; save torch.nested.to_padded_tensor of it",
    "_rebuild_qtensor": "a quantised tensor; save tensor.dequantize()",
    "_rebuild_tensor_v3": "a tensor of a dtype that is not taken (float8, or an unsigned one); save tensor.float()",
}
_OTHER_STORAGES = {
    "ComplexFloatStorage": "complex numbers",
    "ComplexDoubleStorage": "complex numbers",
    **dict.fromkeys(("QInt8Storage", "QUInt8Storage", "QInt32Storage"), "quantised numbers"),
}


@dataclass(frozen=True)
class Storage:
    """A typed block of numbers: member ``data/<key>`` of the archive."""

    key: str
    dtype: str
    numel: int


@dataclass(frozen=True)
class Tensor:
    """A strided view of a storage, not checked against it yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Global:
    module: str
    name: str


class _Mark:
    pass


class _Refused(Exception):
    """Why a pickle is not read; turned into an InputError that names the file."""


def parse(raw: bytes, where: str, *, arrays: bool = False, python2: bool = False) -> Any:
    """Interpret a pickle of tensors.

    Parameters
    ----------
    raw : bytes
        ``data.pkl``.
    where : str
        For error texts.
    arrays : bool
        Take NumPy arrays too.
    python2 : bool
        Take the strings of Python 2 too, each byte as the letter of its number (Latin-1).

    Returns
    -------
    object
        :class:`Tensor`, a :class:`~dmstore.readers.torch_numpy.Array`, or dictionaries, lists, tuples and plain
        values that hold some.

    Raises
    ------
    InputError
        If it needs anything but tensors (naming it), or is damaged.
    """
    try:
        return _run(raw, arrays, _VALUES | _PYTHON2 if python2 else _VALUES)
    except (_Refused, torch_numpy.StateError) as error:
        msg = f"{where}: {error}"
        raise InputError(msg) from None
    except Exception as error:  # noqa: BLE001 - bytes from anywhere can make the parser raise anything
        text = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        msg = f"{where}: its pickle is damaged ({text}); save the file again"
        raise InputError(msg) from None


def _run(raw: bytes, arrays: bool, values: set[str]) -> Any:  # noqa: FBT001 - private
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    argument: Any
    for opcode, argument, _ in pickletools.genops(raw):
        name = opcode.name
        if name in ("PROTO", "FRAME"):
            continue
        if name == "STOP":
            return stack.pop()
        if name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in values:
            stack.append(argument)
        elif name in _ACTIONS:
            _ACTIONS[name](stack, argument)
            if not arrays and isinstance(stack[-1], _Global):
                _check_tensors_only(stack[-1])
        else:
            msg = (
                f"its pickle uses {name}, which tensors do not need; save tensors alone, in a dict"
            )
            raise _Refused(msg)
    msg = "its pickle does not end; the file is cut, save it again"
    raise _Refused(msg)


def _to_mark(stack: list[Any]) -> list[Any]:
    """Take what lies above the last mark, and the mark."""
    items = []
    while not isinstance(item := stack.pop(), _Mark):
        items.append(item)
    return items[::-1]


def _check_global(module: str, name: str) -> _Global:
    if module == "torch._utils" and name in _OTHER_TENSORS:
        msg = f"holds {_OTHER_TENSORS[name]}"
        raise _Refused(msg)
    if module == "torch" and name in _OTHER_STORAGES:
        msg = f"holds {_OTHER_STORAGES[name]}; save tensors of float32 or float64"
        raise _Refused(msg)
    known = (module, name) in (_TENSOR, _PARAMETER, _ORDERED, *torch_numpy.GLOBALS)
    if not known and not (module == "torch" and name in STORAGES):
        _refuse_global(module, name)
    return _Global(module, name)


def _check_tensors_only(entry: _Global) -> None:
    if (entry.module, entry.name) in torch_numpy.GLOBALS:
        _refuse_global(entry.module, entry.name)


def _refuse_global(module: str, name: str) -> None:
    msg = (
        f"holds {f'{module}.{name}'[:200]!r}, which is no tensor and would have to be executed; nothing was: "
        "save a dict of tensors alone"
    )
    raise _Refused(msg)


def _global(stack: list[Any], argument: Any) -> None:
    module, _, name = argument.partition(" ")
    stack.append(_check_global(module, name))


def _stack_global(stack: list[Any], _: Any) -> None:
    name, module = stack.pop(), stack.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        msg = "its pickle names a global by what is no text; the file is damaged"
        raise _Refused(msg)
    stack.append(_check_global(module, name))


def _tuple(count: int) -> Any:
    def action(stack: list[Any], _: Any) -> None:
        items = tuple(stack.pop() for _ in range(count))[::-1]
        stack.append(items)

    return action


def _set_items(target: Any, items: list[Any]) -> None:
    if not isinstance(target, dict) or len(items) % 2:
        msg = "its pickle sets items of what is no dict; save a dict of tensors alone"
        raise _Refused(msg)
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, str | int):
            msg = "a dict in it has a key that is no text; save a dict of tensors alone"
            raise _Refused(msg)
        target[key] = value


def _extend(target: Any, items: list[Any]) -> None:
    if not isinstance(target, list):
        msg = "its pickle appends to what is no list; save a dict of tensors alone"
        raise _Refused(msg)
    target.extend(items)


def _set_item(stack: list[Any], _: Any) -> None:
    items = [stack.pop(), stack.pop()][::-1]
    _set_items(stack[-1], items)


def _many_items(stack: list[Any], _: Any) -> None:
    items = _to_mark(stack)
    _set_items(stack[-1], items)


def _append(stack: list[Any], _: Any) -> None:
    item = stack.pop()
    _extend(stack[-1], [item])


def _appends(stack: list[Any], _: Any) -> None:
    items = _to_mark(stack)
    _extend(stack[-1], items)


def _persistent(stack: list[Any], _: Any) -> None:
    kind, storage, key, _location, numel = stack.pop()
    known = isinstance(storage, _Global) and storage.name in STORAGES
    if kind != "storage" or not known or not isinstance(key, str):
        msg = "refers to something outside that is no storage of numbers; save a dict of tensors alone"
        raise _Refused(msg)
    stack.append(Storage(key, STORAGES[storage.name], _count(numel)))


def _build(stack: list[Any], _: Any) -> None:
    state = stack.pop()
    if isinstance(stack[-1], torch_numpy.Array | torch_numpy.Dtype):
        stack[-1].set_state(state)
        return
    # The state of an OrderedDict of a module is version notes; it is left out.
    if not isinstance(stack[-1], dict):
        msg = "its pickle sets the state of an object; save a dict of tensors alone"
        raise _Refused(msg)


def _reduce(stack: list[Any], _: Any) -> None:
    arguments, function = stack.pop(), stack.pop()
    if function == _Global(*_ORDERED) and arguments == ():
        stack.append({})
    elif function == _Global(*_TENSOR):
        storage, offset, shape, strides = arguments[:4]
        if (
            not isinstance(storage, Storage)
            or len(shape) != len(strides)
            or len(shape) > _MOST_DIMS
        ):
            msg = "describes a tensor with no storage or no shape; the file is damaged"
            raise _Refused(msg)
        stack.append(
            Tensor(storage, _count(offset), tuple(map(_count, shape)), tuple(map(_count, strides)))
        )
    elif function == _Global(*_PARAMETER) and isinstance(arguments[0], Tensor):
        stack.append(arguments[0])
    elif isinstance(function, _Global) and (function.module, function.name) in torch_numpy.GLOBALS:
        stack.append(torch_numpy.call(function.module, function.name, arguments))
    else:
        msg = "its pickle calls something that makes no tensor; save a dict of tensors alone"
        raise _Refused(msg)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        # Only an integer is printed: nested tuples that share parts can print without end.
        shown = str(value)[:40] if type(value) is int else f"of type {type(value).__name__}"
        msg = f"describes a tensor with a size, stride or offset {shown}; the file is damaged"
        raise _Refused(msg)
    return value


_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_VALUES = {
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BININT",
    "BININT1",
    "BININT2",
    "LONG1",
    "BINFLOAT",
    "SHORT_BINBYTES",
    "BINBYTES",
}
_PYTHON2 = {"SHORT_BINSTRING", "BINSTRING"}
_ACTIONS: dict[str, Any] = {
    "MARK": lambda stack, _: stack.append(_Mark()),
    "EMPTY_DICT": lambda stack, _: stack.append({}),
    "EMPTY_LIST": lambda stack, _: stack.append([]),
    "TUPLE": lambda stack, _: stack.append(tuple(_to_mark(stack))),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "SETITEM": _set_item,
    "SETITEMS": _many_items,
    "APPEND": _append,
    "APPENDS": _appends,
    "BINPERSID": _persistent,
    "BUILD": _build,
    "REDUCE": _reduce,
}
