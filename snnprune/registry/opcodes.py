"""A stack machine that follows a pickle's opcodes with names and sizes in place of values."""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from functools import partial
from typing import IO, Any

from .allowed import may_be_set
from .calls import CALLS, STORAGES, is_constant, storage
from .nodes import Global, Node, Refused, is_odd, is_plain, tuple_of, weight
from .stand_ins import NAMESPACE
from .tally import CALL, CONTAINER, OBJECT, Tally

PICKLE_LIMIT = 64 * 2**20  # bytes of the part that is no tensor
_SMALL = 16  # values in the state of an element type of NumPy
_NAME = 200  # characters that are kept of a name
_CONFIG = "torchvision.models.vision_transformer.ConvStemConfig"  # a named tuple: the one class made with values
_CONSTANTS = {"NONE": None, "NEWFALSE": False, "NEWTRUE": True}
_EMPTY = {"EMPTY_LIST": "list", "EMPTY_DICT": "dict", "EMPTY_SET": "set", "EMPTY_TUPLE": "tuple"}


class Machine:
    """Follows the opcodes that `torch.load(weights_only=True)` knows.

    Args:
        classes: the module classes that may be made, by their full names.
        foreign: filled with the names that may not be used.
        tally: counts what it costs.
    """

    def __init__(self, classes: Mapping[str, type], foreign: set[str], tally: Tally) -> None:
        self.classes, self.foreign, self.tally = classes, foreign, tally
        self.steps: dict[str, tuple[int, Callable[[Any], None]]] = {
            **dict.fromkeys(("PROTO", "STOP", "FRAME"), (1, lambda _: None)),
            **dict.fromkeys(("BININT", "BININT1", "BININT2", "BINFLOAT"), (1, self._push)),
            **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "LONG1"), (1, self._push_long)),
            "SHORT_BINSTRING": (1, self._push_bytes),
            **{name: (1, partial(self._push_constant, value)) for name, value in _CONSTANTS.items()},
            **{name: (CONTAINER, partial(self._push_empty, kind)) for name, kind in _EMPTY.items()},
            **{f"TUPLE{n}": (CONTAINER, partial(self._join, n)) for n in (1, 2, 3)},
            **dict.fromkeys(("BINPUT", "LONG_BINPUT"), (1, self._put)),
            **dict.fromkeys(("BINGET", "LONG_BINGET"), (1, self._get)),
            "MEMOIZE": (1, lambda _: self._put(len(self.memo))),
            "MARK": (CONTAINER, self._mark),
            "TUPLE": (1, lambda _: self._push(tuple_of(self._pop_mark()))),
            "APPEND": (1, lambda _: self._append([self.stack.pop()])),
            "APPENDS": (1, lambda _: self._append(self._pop_mark())),
            "SETITEM": (1, lambda _: self._set_items([self.stack.pop(), self.stack.pop()][::-1])),
            "SETITEMS": (1, lambda _: self._set_items(self._pop_mark())),
            "GLOBAL": (CALL, self._global),
            # Of newer protocols, which torch.save does not use: only to name it.
            "STACK_GLOBAL": (CALL, lambda _: self._global(" ".join([str(self.stack.pop()) for _ in "12"][::-1]))),
            "REDUCE": (CALL, lambda _: self._apply(self._call)),
            "NEWOBJ": (OBJECT, lambda _: self._apply(self._new)),
            "BUILD": (OBJECT, lambda _: self._build(self.stack.pop())),
            "BINPERSID": (CALL, lambda _: self._push(storage(self.tally, self.stack.pop()))),
        }

    def run(self, stream: IO[bytes]) -> None:
        """One pickle, from where the stream stands."""
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        for opcode, argument, position in pickletools.genops(stream):
            if position is not None and position > PICKLE_LIMIT:
                raise Refused(f"its part that is no tensor is larger than {PICKLE_LIMIT >> 20} MiB")
            if opcode.name not in self.steps:
                raise Refused(f"it holds the operation {opcode.name}")
            work, step = self.steps[opcode.name]
            self.tally.spend(work)
            step(argument)
        self.tally.check(tuple_of(self.stack))

    def _push(self, value: Any) -> None:
        self.stack.append(value)

    def _push_long(self, value: Any) -> None:
        self.tally.spend(weight(value))
        self.stack.append(value)

    def _push_bytes(self, value: str) -> None:
        if not value.isascii():  # which PyTorch would decode in another way
            raise Refused("a string of it is no text")
        self._push_long(value)

    def _push_constant(self, value: Any, _: Any) -> None:
        self.stack.append(value)

    def _push_empty(self, kind: str, _: Any) -> None:
        self.stack.append(Node(kind))

    def _put(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    def _get(self, place: int) -> None:
        self.stack.append(self.memo[place])

    def _join(self, count: int, _: Any) -> None:
        if len(self.stack) < count:
            raise Refused("its stack is empty")
        self.stack[-count:] = [tuple_of(self.stack[-count:])]

    def _mark(self, _: Any) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def _pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def _append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, Node) or target.kind not in ("list", "foreign"):
            raise Refused("it appends to what is no list")
        target.hold(items)
        target.size += len(items)
        target.plain = target.plain and all(is_plain(item) for item in items)
        target.odd += sum(is_odd(item) for item in items)
        self.tally.check(target)

    def _set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, Node) or target.kind not in ("dict", "ordered", "foreign"):
            raise Refused("it puts entries into what is no dict")
        if len(items) % 2:
            raise Refused("an entry of a dict has no value")
        keys = items[::2]
        if not all(is_plain(key) for key in keys):
            raise Refused("a key of a dict is no number or string")
        target.hold(items)
        target.size += len(keys)
        target.keys += keys
        odd = sum(is_odd(key) for key in keys)
        target.odd += odd
        self.tally.hash(odd)
        self.tally.check(target)

    def _global(self, argument: str) -> None:
        module, _, function = argument.partition(" ")
        name = f"{'builtins' if module == '__builtin__' else module}.{function}"
        if name in self.classes:
            self.tally.named.add(name)
            self.tally.look_up()
        elif not (name in CALLS or name in STORAGES or name == NAMESPACE or is_constant(name)):
            self.foreign.add(name.removeprefix("builtins.")[:_NAME])
        self.stack.append(Global(name))

    def _arguments(self, function: Any, arguments: Any, verb: str, known: Mapping[str, Any]) -> tuple[str, Any]:
        """The name of what is called or made, and with what; of a foreign one None."""
        name = function.name if isinstance(function, Global) else ""
        if name.removeprefix("builtins.")[:_NAME] in self.foreign:
            return name, None
        if name not in known or not isinstance(arguments, Node) or arguments.kind != "tuple":
            raise Refused(f"it {verb} {name[:_NAME] or 'what is no function'}")
        return name, arguments.items

    def _apply(self, what: Callable[[Any, Any], Node]) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = what(self.stack[-1], arguments)

    def _call(self, function: Any, arguments: Any) -> Node:
        name, items = self._arguments(function, arguments, "calls", CALLS)
        return Node("foreign") if items is None else CALLS[name](self.tally, items)

    def _new(self, cls: Any, arguments: Any) -> Node:
        if isinstance(cls, Global) and cls.name == NAMESPACE and isinstance(arguments, Node):
            return Node("namespace", arguments.items)
        name, items = self._arguments(cls, arguments, "makes an object of", self.classes)
        if items and name != _CONFIG:
            raise Refused(f"it makes an object of {name} with arguments")
        self.tally.look_up()
        if items is None:
            return Node("foreign")
        made = Node("object", items)
        made.cls = self.classes[name]
        return made

    def _build(self, state: Any) -> None:
        target = self.stack[-1]
        kind = target.kind if isinstance(target, Node) else ""
        if kind == "foreign":
            return
        if kind == "dtype" and isinstance(state, Node) and state.kind == "tuple" and state.weight <= _SMALL:
            target.hold([state])
            return
        if not isinstance(state, Node) or state.kind != "dict":
            raise Refused("the state of an object is no dict")
        if kind == "ordered" and any(key != "_metadata" for key in state.keys):
            raise Refused("a dict has attributes")
        if kind == "object":
            wrong = [key for key in state.keys if not may_be_set(key, target.cls)]
            if wrong:
                raise Refused(f"a {target.cls.__name__} has an attribute {str(wrong[0])[:_NAME]!r}, as none has")
        elif kind not in ("ordered", "namespace"):
            raise Refused("it gives a state to what has none")
        self.tally.spend(state.size)  # which is copied
        if kind == "object":
            self.tally.look_up()
        target.hold([state])
        self.tally.check(target)
