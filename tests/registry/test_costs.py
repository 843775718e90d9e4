"""Pickles that would keep us busy are refused before anything of them is made."""

from __future__ import annotations

import struct
import zipfile

import pytest
import torch
from torch import nn

from registry.conftest import refused
from registry.programs import crafted, name, number, text
from snnprune.registry.allowed import allowed_by_name
from snnprune.registry.files import read_model_file
from snnprune.registry.whole import check_whole

PRIME = 2**61 - 1  # integers that differ by it have the same hash
IDENTITY = name("torch.nn.modules.linear", "Identity")
LINEAR = name("torch.nn.modules.linear", "Linear")
ORDERED = name("collections", "OrderedDict")
PARAMETER = name("torch._utils", "_rebuild_parameter")
PARAMETER_WITH = name("torch._utils", "_rebuild_parameter_with_state")
FAR_MORE, REPEATS, NESTED, CHANGES = "far more objects", "repeats its parts", "nested more than", "in one another"
KEYS = "keys of its dicts and sets"


def long(value: int) -> bytes:
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def lists(content: bytes, repeats: int, depth: int) -> bytes:
    """A list of one list, as often as `repeats`, of one list, and so on."""
    found = b"](" + content + b"eq\x00"
    return found + (b"](" + b"h\x00" * repeats + b"eq\x00") * depth


def items(values) -> bytes:
    """What fills a list or, with pairs, a dict."""
    return b"(" + b"".join(values)


def colliding(count: int) -> list[bytes]:
    """Integers of one and the same hash."""
    return [long(PRIME * i) for i in range(1, count + 1)]


def keyed(keys) -> bytes:
    """A dict with these keys."""
    return b"}" + items(key + b"N" for key in keys) + b"u"


def again(function: bytes, argument: bytes, times: int) -> bytes:
    """A list of what a function makes of one argument, again and again."""
    return b"](" + function + b"q\x01" + argument + b"q\x02" + b"h\x01h\x02\x85R" * times + b"e"


def stated(state: bytes) -> bytes:
    """An object with an attribute."""
    return IDENTITY + b")\x81}" + text("x") + state + b"sb"


def storage(kind: str, key: bytes = text("0"), count: int = 4, module: str = "torch") -> bytes:
    return b"(" + text("storage") + name(module, kind) + key + text("cpu") + number(count) + b"tQ"


def rebuilt(stored: bytes, rest: bytes = b"N", version: str = "_v2", count: int = 4) -> bytes:
    """A tensor; the rest are its hooks and what follows them."""
    shape = b"K" + bytes([count]) + b"\x85K\x01\x85"
    return (
        name("torch._utils", f"_rebuild_tensor{version}")
        + b"("
        + stored
        + b"K\x00"
        + shape
        + b"\x89"
        + rest
        + b"tR"
    )


SET, COUNTER = name("builtins", "set"), name("collections", "Counter")
WORDS = [text(f"a{i}") for i in range(9000)]
SMILE = "\U0001f600"  # a text with it takes four bytes for every letter
EVERY = [name(*full.rsplit(".", 1)) for full in allowed_by_name()]

COSTLY = {
    "a class in place of a method": (
        IDENTITY + b")\x81}" + text("__setstate__") + COUNTER + b"sb" + b"}b" * 3,
        "an attribute '__setstate__', as none has",
    ),
    "shared lists": (lists(b"K\x01", 20, 8), REPEATS),
    "shared lists in a module": (stated(lists(b"K\x01", 20, 8)), REPEATS),
    "shared dicts": (b"}q\x00" + (b"}" + items(b"K%ch\x00" % i for i in range(20)) + b"uq\x00") * 8, REPEATS),
    "shared tuples": (b")q\x00" + (b"(" + b"h\x00" * 20 + b"tq\x00") * 8, REPEATS),
    "keys of equal hash": (keyed(colliding(60_000)), KEYS),
    "fewer keys of equal hash": (keyed(colliding(2000)), KEYS),
    "numbers of equal hash": (keyed([b"G" + struct.pack(">d", 2.0**61)] * 1001), KEYS),
    "tuples of equal hash": (keyed([b"K\x01K\x02\x86"] * 1001), KEYS),
    "tuples of many values": (keyed([b"(" + b"K\x01" * 10 + b"t"]), "a key of a dict"),
    "a set of equal hash": (SET + b"]" + items(colliding(1001)) + b"e\x85R", KEYS),
    "one set again and again": (again(SET, b"]" + items(colliding(400)) + b"e", 3), KEYS),
    "one counter again and again": (again(COUNTER, keyed(colliding(400)), 2), KEYS),
    "a tuple of tuples": (b"K\x01q\x00" + b"h\x00h\x00\x86q\x00" * 2000, NESTED),
    "a key nested deep": (b"})" + b"\x85" * 997 + b"K\x01s", NESTED),
    "lists nested deep": (b"]" * 200 + b"a" * 199, NESTED),
    "dicts nested deep": (b"}K\x01" * 200 + b"N" + b"s" * 200, NESTED),
    "modules nested deep": (b"".join([(IDENTITY + b")\x81}" + text("x")) * 60, b"N", b"sb" * 60]), NESTED),
    "a list in itself": (b"]q\x00h\x00a", CHANGES),
    "a list that grows later": (b"]q\x00]h\x00ah\x00K\x01a", CHANGES),
    "an object in its state": (IDENTITY + b")\x81q\x00}" + text("x") + b"h\x00sb", CHANGES),
    "a dict copied again and again": (again(COUNTER, keyed(WORDS), 30), FAR_MORE),
    "a state copied again and again": (
        b"]" + keyed(WORDS) + b"q\x02" + items([IDENTITY + b")\x81h\x02b"] * 30) + b"e",
        FAR_MORE,
    ),
    "a text encoded again and again": (
        text("x" * 800_000) + b"q\x02" + (name("_codecs", "encode") + b"h\x02" + text("latin1") + b"\x86R") * 30,
        FAR_MORE,
    ),
    "six million lists": (b"](" + b"]" * 6_000_000 + b"e", "far larger"),
    "many lists": (b"](" + b"]" * 900_000 + b"e", FAR_MORE),
    "a long text": (text(SMILE + "x" * 3_000_000), "far larger"),
    "texts of wide letters": (b"](" + text(SMILE + "x" * 90_000) * 10 + b"e" + b"N" * 150_000, FAR_MORE),
    "objects of many classes": (items(EVERY) + items([IDENTITY + b")\x81"] * 4000), FAR_MORE),
    "one class named again and again": (b"](" + IDENTITY * 9000 + b"e", FAR_MORE),
    "a number of letters": (name("builtins", "complex") + text("1" * 9000) + b"\x85R", "makes a complex"),
    "a device of letters": (name("torch", "device") + text("cpu" * 99) + b"\x85R", "makes a device"),
    "a shape of letters": (name("torch", "Size") + text("cpu") + b"\x85R", "the shape"),
}


@pytest.fixture
def nothing_loaded(monkeypatch):
    def load(*_arguments, **_options):
        pytest.fail("PyTorch was asked to load it")

    monkeypatch.setattr(torch, "load", load)


@pytest.mark.usefixtures("nothing_loaded")
@pytest.mark.parametrize(("program", "message"), COSTLY.values(), ids=COSTLY)
def test_what_would_keep_us_busy_is_refused(tmp_path, program, message):
    refused(crafted(tmp_path / "w.pt", program, how=zipfile.ZIP_DEFLATED), message)


CLASS = b"}" + text("__class__") + LINEAR + b"s"
FORGED = {
    "a storage of two types": (
        b"(" + rebuilt(storage("FloatStorage")) + rebuilt(storage("DoubleStorage", count=2), count=2) + b"t",
        "several sizes or types",
    ),
    "a storage of two sizes": (
        b"("
        + rebuilt(storage("FloatStorage", count=3), count=2)
        + rebuilt(storage("FloatStorage"), count=2)
        + b"t",
        "several sizes or types",
    ),
    "a storage smaller than its part": (rebuilt(storage("FloatStorage", count=0), count=0), "does not have"),
    "a key in other letters": (rebuilt(storage("FloatStorage", b"U\x02\xc3\xa9")), "no text"),
    "a key that is a number": (rebuilt(storage("FloatStorage", b"K\x00")), "malformed"),
    "a larger type": (
        rebuilt(
            storage("UntypedStorage", count=16, module="torch.storage"), b"N" + name("torch", "float64"), "_v3"
        ),
        "larger than what is stored",
    ),
    "no type": (rebuilt(storage("FloatStorage"), b"NK\x01", "_v3"), "the type of a tensor"),
    "hooks": (rebuilt(storage("FloatStorage"), ORDERED + b")RK\x00" + COUNTER + b"s"), "has hooks"),
    "metadata": (rebuilt(storage("FloatStorage"), b"NK\x01"), "unusual metadata"),
    "hooks of a parameter": (
        PARAMETER + b"(" + rebuilt(storage("FloatStorage")) + b"\x89" + keyed([b"K\x01"]) + b"tR",
        "makes a parameter",
    ),
    "a parameter of a class": (
        PARAMETER_WITH + b"(" + rebuilt(storage("FloatStorage")) + b"\x89N" + CLASS + b"tR",
        "makes a parameter",
    ),
}


@pytest.mark.usefixtures("nothing_loaded")
@pytest.mark.parametrize(("program", "message"), FORGED.values(), ids=FORGED)
def test_tensors_that_are_not_what_they_seem(tmp_path, program, message):
    refused(crafted(tmp_path / "w.pt", program), message)


def test_the_tensor_that_they_are_made_from_is_a_good_one(tmp_path):
    good = [
        rebuilt(storage("FloatStorage")),
        rebuilt(storage("FloatStorage", b"U\x010"), ORDERED + b")R}"),
        rebuilt(
            storage("UntypedStorage", count=16, module="torch.storage"), b"N" + name("torch", "float32"), "_v3"
        ),
        PARAMETER_WITH + b"(" + rebuilt(storage("FloatStorage")) + b"\x89N}" + text("note") + b"K\x01stR",
    ]
    for program in good:
        path = crafted(tmp_path / "w.pt", b"}" + text("w") + program + b"s")
        assert read_model_file(path)["w"].tolist() == [0.0] * 4


def test_tensors_on_one_storage_count_as_often_as_they_are_met(tmp_path):
    """One of 4 MiB, 40 times in a list that is 40 times in another one."""
    size = 2**20
    program = rebuilt(storage("FloatStorage", count=size)).replace(b"K\x04\x85", number(size) + b"\x85")
    shared = b"](" + program + b"q\x00" + b"h\x00" * 39 + b"eq\x00" + b"](" + b"h\x00" * 40 + b"e"
    refused(crafted(tmp_path / "w.pt", shared, bytes(4 * size)), "far larger than the file")


@pytest.mark.parametrize("key", ["__setstate__", "__class__", "forward", "_private", "", 3, "x" * 600])
def test_what_may_be_set_is_a_list(tmp_path, key):
    model = nn.Sequential(nn.ReLU()).eval()
    model[0].__dict__[key] = 1
    torch.save(model, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", "a ReLU has an attribute", "as none has")


def test_values_of_ones_own_may_be_set(tmp_path):
    model = nn.Sequential(nn.ReLU()).eval()
    model[0].note, model.classes, model.shape = "x", ["a", "b"], {"size": (1, 2, (3, 4))}
    torch.save(model, tmp_path / "w.pt")
    assert read_model_file(tmp_path / "w.pt")[0].note == "x"


def test_shared_values_of_a_module_are_looked_at_once(tmp_path):
    """Each is met as often as its holders are; there are far more ways to it than values."""
    value: list = [1]
    for _ in range(60):
        value = [value, value]
    model = nn.Sequential(nn.ReLU())
    model.deep = value
    check_whole(model, tmp_path)


def test_thousands_of_small_tensors_are_no_bomb(tmp_path):
    """A state and its optimiser, of which the headers take more than the values."""
    weights = [nn.Parameter(torch.zeros(3)) for _ in range(2000)]
    optimizer = torch.optim.AdamW(weights)
    for weight in weights:
        weight.grad = torch.zeros(3)
    optimizer.step()
    state = {str(at): weight for at, weight in enumerate(weights)}
    torch.save({"state_dict": state, "optimizer": optimizer.state_dict()}, tmp_path / "w.pt")
    assert len(read_model_file(tmp_path / "w.pt")) == 2000


def test_what_a_file_may_hold_grows_with_its_size(tmp_path):
    """A million numbers are fine in the file that they take, and not in one of a thousandth of it."""
    numbers = [float(i) for i in range(200_000)]
    torch.save({"state_dict": {"w": torch.ones(2)}, "losses": numbers}, tmp_path / "w.pt")
    assert read_model_file(tmp_path / "w.pt").keys() == {"w"}
    program = b"](" + (b"G" + struct.pack(">d", 1.5)) * 200_000 + b"e"
    refused(crafted(tmp_path / "w.pt", program, how=zipfile.ZIP_DEFLATED), "far larger")
