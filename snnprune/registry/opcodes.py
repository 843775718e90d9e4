"""A stack machine that follows a pickle's opcodes with names and sizes in place of values."""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable, Collection
from typing import IO, Any

PICKLE_LIMIT = 64 * 2**20  # bytes of the part that is no tensor
_SLACK = 64 * 2**20  # bytes that tensors on shared memory may seem to have beyond 16 times the file
_BYTES = {
    **dict.fromkeys(("Byte", "Char", "Bool"), 1),
    **dict.fromkeys(("Half", "BFloat16", "Short"), 2),
    **dict.fromkeys(("Float", "Int"), 4),
    **dict.fromkeys(("Double", "Long", "ComplexFloat"), 8),
    "ComplexDouble": 16,
}
_STORAGES = {**{f"torch.{k}Storage": v for k, v in _BYTES.items()}, "torch.storage.UntypedStorage": 1}
_TENSORS = {f"torch._utils._rebuild_tensor{end}" for end in ("", "_v2", "_v3")}
_PARAMETERS = {f"torch._utils._rebuild_parameter{end}" for end in ("", "_with_state")}
_CONFIG = "torchvision.models.vision_transformer.ConvStemConfig"  # a named tuple: the one class made with values
_CONSTANTS = ("float", "double", "half", "bfloat", "int", "uint", "long", "short", "bool", "complex", "strided")
_PUSHED = {"NONE": None, "NEWFALSE": False, "NEWTRUE": True}
_ARGUMENTS = {"BININT", "BININT1", "BININT2", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING", "LONG1"}
_EMPTY = {"EMPTY_LIST": "list", "EMPTY_DICT": "dict", "EMPTY_SET": "set"}


class Refused(Exception):
    """The file is damaged, or asks for what no saved model needs."""


class OldModel(Exception):
    """A whole model in the format of PyTorch before 1.6, which comes with the source of its classes."""


class _Global:
    """A class or function that the file names."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Tuple:
    """A tuple; `plain` when it may be hashed: small, and of numbers and strings alone."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items
        self.weight = 1 + sum(i.weight if isinstance(i, _Tuple) else 1 for i in items)
        self.plain = self.weight < 1000 and all(_plain(i) for i in items)


class _Thing:
    """Anything else by its kind; of lists whether all may be hashed, of dicts the keys, of storages the size."""

    def __init__(self, kind: str, size: int = 0, item: int = 1) -> None:
        self.kind, self.size, self.item = kind, size, item
        self.plain, self.keys = True, set[Any]()


def _plain(value: Any) -> bool:
    return value.plain if isinstance(value, _Tuple) else not isinstance(value, (_Thing, _Global))


class Machine:
    """Follows the opcodes that `torch.load(weights_only=True)` knows.

    Args:
        classes: full names of the module classes that may be made.
        foreign: filled with the names that may not be used.
        size: bytes of the whole file, unpacked.
    """

    def __init__(self, classes: Collection[str], foreign: set[str], size: int) -> None:
        self.classes, self.foreign = classes, foreign
        self.limit = 16 * size + _SLACK
        self.tensors = self.storages = 0
        self.seen: dict[Any, int] = {}
        self.storage_limit: Callable[[Any], int] = lambda key: 0

    def run(self, stream: IO[bytes]) -> None:
        """One pickle, from where the stream stands."""
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        for opcode, argument, position in pickletools.genops(stream):
            if position is not None and position > PICKLE_LIMIT:
                raise Refused(f"its part that is no tensor is larger than {PICKLE_LIMIT >> 20} MiB")
            self._step(opcode.name, argument)

    def _step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _ARGUMENTS:
            stack.append(argument)
        elif name in _PUSHED:
            stack.append(_PUSHED[name])
        elif name in _EMPTY:
            stack.append(_Thing(_EMPTY[name]))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name == "MARK":
            self.marks.append(stack)
            self.stack = []
        elif name == "EMPTY_TUPLE":
            stack.append(_Tuple([]))
        elif name == "TUPLE":
            self._pop_mark(lambda items: self.stack.append(_Tuple(items)))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            if len(stack) < count:
                raise Refused("its stack is empty")
            stack[-count:] = [_Tuple(stack[-count:])]
        elif name == "APPEND":
            item = stack.pop()
            self._append([item])
        elif name == "APPENDS":
            self._pop_mark(self._append)
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            self._set_items([key, value])
        elif name == "SETITEMS":
            self._pop_mark(self._set_items)
        elif name == "GLOBAL":
            self._global(argument)
        elif name == "REDUCE":
            arguments = stack.pop()
            stack[-1] = self._call(stack[-1], arguments)
        elif name == "NEWOBJ":
            arguments = stack.pop()
            stack[-1] = self._new(stack[-1], arguments)
        elif name == "BUILD":
            state = stack.pop()
            self._build(stack[-1], state)
        elif name == "BINPERSID":
            stack.append(self._storage(stack.pop()))
        elif name == "STACK_GLOBAL":  # of newer protocols, which torch.save does not use: only to name it
            function, module = stack.pop(), stack.pop()
            self._global(f"{module} {function}")
        elif name not in ("PROTO", "STOP", "FRAME", "MEMOIZE", "SHORT_BINUNICODE"):
            raise Refused(f"it holds the operation {name}")
        elif name == "SHORT_BINUNICODE":
            stack.append(argument)
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]

    def _pop_mark(self, use: Callable[[list[Any]], None]) -> None:
        items, self.stack = self.stack, self.marks.pop()
        use(items)

    def _append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, _Thing) or target.kind not in ("list", "foreign"):
            raise Refused("it appends to what is no list")
        target.plain = target.plain and all(_plain(item) for item in items)

    def _set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, _Thing) or target.kind not in ("dict", "ordered", "foreign"):
            raise Refused("it puts entries into what is no dict")
        if len(items) % 2:
            raise Refused("an entry of a dict has no value")
        if not all(_plain(key) for key in items[::2]):
            raise Refused("a key of a dict is no number or string")
        target.keys.update(key for key in items[::2] if not isinstance(key, _Tuple))

    def _global(self, argument: str) -> None:
        module, _, function = argument.partition(" ")
        name = f"{'builtins' if module == '__builtin__' else module}.{function}"
        if not (name in _CALLS or name in self.classes or name in _STORAGES or _is_constant(name)):
            self.foreign.add(name.removeprefix("builtins."))
        self.stack.append(_Global(name))

    def _call(self, function: Any, arguments: Any) -> Any:
        name = function.name if isinstance(function, _Global) else ""
        if name.removeprefix("builtins.") in self.foreign:
            return _Thing("foreign")
        if name not in _CALLS or not isinstance(arguments, _Tuple):
            raise Refused(f"it calls {name or 'what is no function'}")
        if name in _TENSORS:
            self._tensor(arguments.items)
        return _CALLS[name](arguments.items)

    def _new(self, cls: Any, arguments: Any) -> Any:
        name = cls.name if isinstance(cls, _Global) else ""
        if name.removeprefix("builtins.") in self.foreign:
            return _Thing("foreign")
        if name not in self.classes or not isinstance(arguments, _Tuple):
            raise Refused(f"it makes an object of {name or 'what is no class'}")
        if arguments.items and name != _CONFIG:
            raise Refused(f"it makes an object of {name} with arguments")
        return _Thing("object")

    def _build(self, target: Any, state: Any) -> None:
        kind = target.kind if isinstance(target, _Thing) else ""
        if kind == "foreign":
            return
        if not isinstance(state, _Thing) or state.kind != "dict":
            raise Refused("the state of an object is no dict")
        if kind == "ordered" and not state.keys <= {"_metadata"}:
            raise Refused("a dict has attributes")
        if kind not in ("object", "ordered"):
            raise Refused("it gives a state to what has none")

    def _storage(self, entry: Any) -> _Thing:
        parts = entry.items if isinstance(entry, _Tuple) else []
        if parts and parts[0] in ("module", b"module"):
            raise OldModel
        if (
            len(parts) not in (5, 6)
            or parts[0] not in ("storage", b"storage")
            or not isinstance(parts[1], _Global)
        ):
            raise Refused("a tensor's storage is malformed")
        item, count, key = _STORAGES.get(parts[1].name), parts[4], parts[2]
        if item is None or type(count) is not int or count < 0 or not isinstance(key, (str, bytes, int)):
            raise Refused("a tensor's storage is malformed")
        if count * item > self.storage_limit(key):
            raise Refused(f"a tensor is said to have {count * item} bytes, which the file does not have")
        self.storages += max(0, count * item - self.seen.get(key, 0))
        self.seen[key] = max(count * item, self.seen.get(key, 0))
        return _Thing("storage", count * item, item)

    def _tensor(self, arguments: list[Any]) -> None:
        storage, offset, shape, strides = arguments[:4]
        if not isinstance(storage, _Thing) or storage.kind != "storage":
            raise Refused("a tensor has no storage")
        sizes, steps = _counts(shape), _counts(strides)
        if type(offset) is not int or offset < 0 or len(sizes) != len(steps):
            raise Refused("the shape of a tensor is malformed")
        count = math.prod(sizes)
        last = offset + sum((n - 1) * step for n, step in zip(sizes, steps, strict=True)) + 1 if count else 0
        if max(count, last) * storage.item > storage.size:
            raise Refused(f"a tensor of the shape {tuple(sizes)} is larger than what is stored of it")
        self.tensors += count * storage.item
        if self.tensors > self.limit:
            raise Refused("its tensors together are far larger than the file")


def _counts(value: Any) -> list[int]:
    items: list[Any] = value.items if isinstance(value, _Tuple) else [None]
    if len(items) > 64 or not all(type(i) is int and 0 <= i < 2**62 for i in items):
        raise Refused("the shape of a tensor is malformed")
    return items


def _is_constant(name: str) -> bool:
    """Element types and layouts, which pickles name as globals of torch."""
    return name.startswith("torch.") and name.count(".") == 1 and name[6:].startswith(_CONSTANTS)


def _made(kind: str, fits: Callable[[list[Any]], bool]) -> Callable[[list[Any]], _Thing]:
    def make(arguments: list[Any]) -> _Thing:
        if not fits(arguments):
            raise Refused(f"it makes a {kind} of something unusual")
        return _Thing(kind)

    return make


def _is(value: Any, *kinds: str) -> bool:
    return isinstance(value, _Thing) and value.kind in kinds


def _scalars(arguments: list[Any]) -> bool:
    return len(arguments) <= 3 and all(_plain(a) and not isinstance(a, _Tuple) for a in arguments)


_CALLS: dict[str, Callable[[list[Any]], Any]] = {
    **dict.fromkeys(_TENSORS, lambda a: _Thing("tensor")),
    **dict.fromkeys(_PARAMETERS, _made("parameter", lambda a: len(a) in (3, 4) and _is(a[0], "tensor"))),
    "collections.OrderedDict": _made("ordered", lambda a: not a),
    "collections.Counter": _made("counter", lambda a: len(a) == 1 and _is(a[0], "dict")),
    "builtins.set": _made("set", lambda a: len(a) == 1 and _is(a[0], "list") and a[0].plain),
    "builtins.complex": _made("complex", _scalars),
    "torch.Size": _made("size", lambda a: len(a) == 1 and isinstance(a[0], _Tuple) and a[0].plain),
    "torch.device": _made("device", _scalars),
    "torch.serialization._get_layout": _made("layout", _scalars),
    "_codecs.encode": _made("bytes", lambda a: len(a) == 2 and isinstance(a[0], str) and a[1] == "latin1"),
}
