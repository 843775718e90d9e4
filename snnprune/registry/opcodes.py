"""A stack machine that follows a pickle's opcodes with names and sizes in place of values."""

from __future__ import annotations

import pickletools
from collections.abc import Mapping
from typing import IO, Any

from .allowed import may_be_set
from .calls import CALLS, STORAGES, is_constant, storage
from .nodes import Global, Node, Refused, is_odd, is_plain, tuple_of, weight
from .tally import CALL, CONTAINER, OBJECT, Tally

PICKLE_LIMIT = 64 * 2**20  # bytes of the part that is no tensor
_NAME = 200  # characters that are kept of a name
_CONFIG = "torchvision.models.vision_transformer.ConvStemConfig"  # a named tuple: the one class made with values
_PUSHED = {"NONE": None, "NEWFALSE": False, "NEWTRUE": True}
_ARGUMENTS = {"BININT", "BININT1", "BININT2", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "LONG1"}
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

    def run(self, stream: IO[bytes]) -> None:
        """One pickle, from where the stream stands."""
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        for opcode, argument, position in pickletools.genops(stream):
            if position is not None and position > PICKLE_LIMIT:
                raise Refused(f"its part that is no tensor is larger than {PICKLE_LIMIT >> 20} MiB")
            self.tally.spend(1)
            self._step(opcode.name, argument)
        self.tally.check(tuple_of(self.stack))

    def _step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _ARGUMENTS:
            self.tally.spend(weight(argument) - 1)
            stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name in _PUSHED:
            stack.append(_PUSHED[name])
        elif name in _EMPTY:
            self.tally.spend(CONTAINER)
            stack.append(Node(_EMPTY[name]))
        elif name == "MARK":
            self.tally.spend(CONTAINER)
            self.marks.append(stack)
            self.stack = []
        elif name == "TUPLE":
            items = self._pop_mark()
            self.stack.append(tuple_of(items))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            self.tally.spend(CONTAINER)
            count = int(name[-1])
            if len(stack) < count:
                raise Refused("its stack is empty")
            stack[-count:] = [tuple_of(stack[-count:])]
        elif name == "APPEND":
            item = stack.pop()
            self._append([item])
        elif name == "APPENDS":
            self._append(self._pop_mark())
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            self._set_items([key, value])
        elif name == "SETITEMS":
            self._set_items(self._pop_mark())
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
            self.tally.spend(CALL)
            stack.append(storage(self.tally, stack.pop()))
        elif name == "SHORT_BINSTRING":
            if not argument.isascii():  # which PyTorch would decode in another way
                raise Refused("a string of it is no text")
            stack.append(argument)
        elif name == "STACK_GLOBAL":  # of newer protocols, which torch.save does not use: only to name it
            function, module = stack.pop(), stack.pop()
            self._global(f"{module} {function}")
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name not in ("PROTO", "STOP", "FRAME"):
            raise Refused(f"it holds the operation {name}")

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
        elif not (name in CALLS or name in STORAGES or is_constant(name)):
            self.foreign.add(name.removeprefix("builtins.")[:_NAME])
        self.tally.spend(CALL)
        self.tally.look_up()
        self.stack.append(Global(name))

    def _arguments(self, function: Any, arguments: Any, verb: str, known: Mapping[str, Any]) -> tuple[str, Any]:
        """The name of what is called or made, and with what; of a foreign one None."""
        name = function.name if isinstance(function, Global) else ""
        if name.removeprefix("builtins.")[:_NAME] in self.foreign:
            return name, None
        if name not in known or not isinstance(arguments, Node) or arguments.kind != "tuple":
            raise Refused(f"it {verb} {name[:_NAME] or 'what is no function'}")
        return name, arguments.items

    def _call(self, function: Any, arguments: Any) -> Node:
        name, items = self._arguments(function, arguments, "calls", CALLS)
        self.tally.spend(CALL)
        return Node("foreign") if items is None else CALLS[name](self.tally, items)

    def _new(self, cls: Any, arguments: Any) -> Node:
        name, items = self._arguments(cls, arguments, "makes an object of", self.classes)
        if items and name != _CONFIG:
            raise Refused(f"it makes an object of {name} with arguments")
        self.tally.spend(OBJECT)
        self.tally.look_up()
        if items is None:
            return Node("foreign")
        made = Node("object", items)
        made.cls = self.classes[name]
        return made

    def _build(self, target: Any, state: Any) -> None:
        kind = target.kind if isinstance(target, Node) else ""
        if kind == "foreign":
            return
        if not isinstance(state, Node) or state.kind != "dict":
            raise Refused("the state of an object is no dict")
        if kind == "ordered" and any(key != "_metadata" for key in state.keys):
            raise Refused("a dict has attributes")
        if kind == "object":
            wrong = [key for key in state.keys if not may_be_set(key, target.cls)]
            if wrong:
                raise Refused(f"a {target.cls.__name__} has an attribute {str(wrong[0])[:_NAME]!r}, as none has")
        elif kind != "ordered":
            raise Refused("it gives a state to what has none")
        self.tally.spend(OBJECT + state.size)  # which is copied
        self.tally.look_up()
        target.hold([state])
        self.tally.check(target)
