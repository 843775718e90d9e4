"""What loading a pickle costs: counted while it is looked through, and bounded by the size of its file."""

from __future__ import annotations

from collections.abc import Callable

from .nodes import Node, Refused

_WORK = 200_000  # opcodes that the smallest file may hold
_BYTES_PER_WORK = 5  # a number in a list takes nine, a tensor some 250 with the headers of its part
_SLACK = 64 * 2**20  # bytes that tensors on shared memory may seem to have beyond 16 times the file
_ODD = 1000  # keys whose hash the file chooses
CONTAINER, CALL, OBJECT, LOOK_UP = 4, 8, 16, 32  # what these take, in opcodes that push a number


class Tally:
    """The bounds of one file, and what was counted so far.

    Args:
        size: bytes of the file, unpacked.
        stored: bytes of the file itself.
        is_stored: whether a storage of this name and so many bytes is in the file.
    """

    def __init__(self, size: int, stored: int, is_stored: Callable[[str, int], bool]) -> None:
        self.limit = 16 * size + _SLACK
        self.work = _WORK + stored // _BYTES_PER_WORK
        self.is_stored = is_stored
        self.storages = self._spent = self._odd = self._look_ups = self._tensors = 0
        self._seen: dict[str, tuple[int, int]] = {}
        self.named: set[str] = set()  # module classes that the file uses

    def spend(self, work: int) -> None:
        """Count time and memory, in opcodes."""
        self._spent += work
        if self._spent > self.work:
            raise Refused("it holds far more objects than a model file of its size")

    def hash(self, odd: int) -> None:
        """Count keys whose hash the file chooses: all may be equal, and each is then compared with every other."""
        self._odd += odd
        if self._odd > _ODD:
            raise Refused(f"more than {_ODD} keys of its dicts and sets are no strings or small integers")

    def look_up(self) -> None:
        """Count a use of a class: for each PyTorch makes a table of all classes that the file may use."""
        self.spend(LOOK_UP)
        self._look_ups += 1
        if self._look_ups * len(self.named) > self.work:
            raise Refused("it holds far more objects than a model file of its size")

    def check(self, node: Node) -> None:
        """Refuse what is small as long as its shared parts are met once, and endless for whoever copies it."""
        if node.weight > self.work:
            raise Refused("it repeats its parts far more often than a model file of its size")
        if node.data > self.limit:
            raise Refused("its tensors together are far larger than the file")

    def storage(self, key: str, size: int, item: int) -> None:
        """Count a storage, once; PyTorch takes what the first mention says of it."""
        if not self.is_stored(key, size):
            raise Refused(f"a tensor is said to have {size} bytes, which the file does not have")
        if key not in self._seen:
            self._seen[key] = size, item
            self.storages += size
        elif self._seen[key] != (size, item):
            raise Refused("the storage of a tensor is said to have several sizes or types")

    def tensor(self, size: int) -> None:
        """Count the bytes of a tensor, which may share its storage with many others."""
        self._tensors += size
        if self._tensors > self.limit:
            raise Refused("its tensors together are far larger than the file")
