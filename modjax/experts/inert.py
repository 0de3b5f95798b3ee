"""Pickles read as data: nothing is imported and nothing is called.

A pickle is a program for a stack machine. It is dangerous because some instructions look up any function by name and
call it. The machine here cannot. It knows only the names that build torch tensors and plain dicts; any other call
becomes a `Record` of the name and its arguments. Instructions that torch.save does not write, such as those for
extension codes, are refused.
"""

import dataclasses
import pickletools
from typing import Any, BinaryIO

TENSOR, PARAMETER = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"
DICTS = ("collections.OrderedDict", "builtins.dict", "__builtin__.dict")


@dataclasses.dataclass(eq=False)
class Record:
    """An object in the pickle that was not constructed."""

    name: str  # of its class, or of the function that would have constructed it
    args: Any = None
    state: Any = None
    items: dict = dataclasses.field(default_factory=dict)  # items of a mapping
    elements: list = dataclasses.field(default_factory=list)  # elements of a list or set

    def get(self, key: str, default: Any = None) -> Any:
        """The value of an item or attribute."""
        attributes = self.state if isinstance(self.state, dict) else {}
        return self.items.get(key, attributes.get(key, default))


@dataclasses.dataclass(frozen=True, eq=False)
class Storage:
    """A flat array, stored outside the pickle."""

    kind: str  # name of its torch class, such as "FloatStorage"
    key: str
    size: int  # number of elements


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor as a view of a storage; offset and strides are counted in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Name:
    """The name of a class or function, which is not imported."""

    name: str


def load(program: bytes | BinaryIO, storages: dict[str, Storage] | None = None) -> Any:
    """The content of a pickle, made of dicts, lists, tuples, strings, bytes, numbers, None, `Tensor` and `Record`.

    Args:
      program: the pickle, or an open file, which is read up to the pickle's end.
      storages: a dict that gets the storages that the pickle refers to, by their keys.

    Sets become lists. Raises ValueError for damaged pickles and for instructions that are not supported.
    """
    machine = _Machine({} if storages is None else storages)
    try:
        for opcode, argument, _ in pickletools.genops(program):  # ends with STOP, or raises ValueError
            machine.step(opcode.name, argument)
        return machine.stack.pop()
    except (IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


_LITERALS = """
    INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
    STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8
"""
_PUSHED = frozenset(_LITERALS.split())
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": list}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_GETS, _PUTS = ("GET", "BINGET", "LONG_BINGET"), ("PUT", "BINPUT", "LONG_BINPUT")


class _Machine:
    """A stack machine that can only build data."""

    def __init__(self, storages):
        self.stack, self.marks, self.memo, self.storages = [], [], {}, storages

    def step(self, name, argument):
        if name in _PUSHED:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            self.stack.append(tuple(self.popped(_TUPLES[name])))
        elif name in _GETS:
            self.stack.append(self.memo[argument])
        elif name in _PUTS:
            self.memo[argument] = self.stack[-1]
        elif name not in ("PROTO", "FRAME", "STOP"):
            self.act(name, argument)

    def act(self, name, argument):
        match name:
            case "MARK":
                self.marks.append(len(self.stack))
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "GLOBAL":
                self.stack.append(Name(argument.replace(" ", ".")))
            case "STACK_GLOBAL":
                self.stack.append(Name(".".join(self.popped(2))))
            case "BINPERSID":
                storage = _storage(self.stack.pop())
                self.stack.append(self.storages.setdefault(storage.key, storage))
            case "REDUCE" | "NEWOBJ":
                self.stack.append(_called(*self.popped(2)))
            case "NEWOBJ_EX":
                function, arguments, keywords = self.popped(3)
                self.stack.append(Record(function.name, (arguments, keywords)))
            case "BUILD":
                _give_state(*self.popped(1), self.stack[-1])
            case "TUPLE" | "LIST" | "FROZENSET":
                self.stack.append((tuple if name == "TUPLE" else list)(self.marked()))
            case "DICT":
                self.stack.append(_set_items({}, self.marked()))
            case "APPEND" | "APPENDS" | "ADDITEMS":
                _append(*self.values_and_target(name == "APPEND", 1))
            case "SETITEM" | "SETITEMS":
                values, target = self.values_and_target(name == "SETITEM", 2)
                _set_items(target, values)
            case _:
                raise ValueError(f"instruction {name} is not one that torch.save writes")

    def values_and_target(self, one, count):
        values = self.popped(count) if one else self.marked()
        return values, self.stack[-1]

    def popped(self, count):
        if len(self.stack) < count:
            raise ValueError("an instruction needs more values than the stack has")
        values = self.stack[-count:]
        del self.stack[-count:]
        return values

    def marked(self):
        mark = self.marks.pop()
        values = self.stack[mark:]
        del self.stack[mark:]
        return values


def _called(function, arguments):
    """The result of a call, if it builds a tensor or a dict; otherwise a Record of the call."""
    if not isinstance(function, Name) or not isinstance(arguments, tuple):
        raise ValueError(f"a {type(function).__name__} is called")
    if function.name == TENSOR:
        return _tensor(*arguments[:4])
    if function.name == PARAMETER and isinstance(arguments[0], Tensor):
        return arguments[0]
    if function.name in DICTS:
        pairs = arguments[0] if arguments else []
        return _set_items({}, [part for key, value in pairs for part in (key, value)])
    return Record(function.name, arguments)


def _give_state(state, target):
    # The state of a dict, attributes of a subclass such as torch's `_metadata`, is not needed.
    if isinstance(target, Record):
        target.state = state
    elif not isinstance(target, dict):
        raise ValueError(f"a {type(target).__name__} is given a state")


def _append(values, target):
    elements = target.elements if isinstance(target, Record) else target
    if not isinstance(elements, list):
        raise ValueError(f"a {type(target).__name__} is appended to")
    elements.extend(values)


def _set_items(target, values):
    items = target.items if isinstance(target, Record) else target
    if not isinstance(items, dict) or len(values) % 2:
        raise ValueError(f"a {type(target).__name__} is given items")
    for key, value in zip(values[::2], values[1::2], strict=True):
        # Nested tuples that share their parts can take exponential time to hash.
        if not isinstance(key, str | int | float | bytes | None | Record):
            raise ValueError(f"a key is a {type(key).__name__}")
        items[key] = value
    return target


def _is_size(value):
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**48


def _storage(reference):
    """The storage that a persistent id of torch refers to: ("storage", class, key, device, size).

    Before torch 1.6 there was a sixth part: None, or the part of another storage, which is not supported.
    """
    whole = isinstance(reference, tuple) and (len(reference) == 5 or (len(reference) == 6 and reference[5] is None))
    if not whole or reference[0] != "storage" or not isinstance(reference[1], Name):
        raise ValueError("a reference to external data is not a storage")
    _, kind, key, _, size = reference[:5]
    if not isinstance(key, str) or not _is_size(size):
        raise ValueError("a storage has an invalid key or size")
    return Storage(kind.name.removeprefix("torch."), key, size)


def _tensor(storage, offset, shape, strides):
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, Storage) or len(shape) != len(strides) or not all(map(_is_size, numbers)):
        raise ValueError("a tensor has an invalid storage, offset, shape or strides")
    return Tensor(storage, offset, tuple(shape), tuple(strides))
