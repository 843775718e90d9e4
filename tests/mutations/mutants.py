"""The faults that are put in: mutmut's operators, on every function, and three that mutmut lacks.

mutmut itself passes over decorated functions, which here are all rules of operations and the whole surgery.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import libcst as cst
import libcst.matchers as m
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators

# Wording and types: what is mutated there changes no result.
_PASSED_OVER = (
    *(cst.Annotation, cst.Assert, cst.Decorator, cst.Import, cst.ImportFrom, cst.Raise),
    *(cst.FormattedString, cst.ConcatenatedString),
)


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        id: the same as long as the function around it is.
        file: relative to the root.
        lines: first and last line of what is changed.
        inside: whether it lies in a function.
        change: the lines of the file that differ, with - and +.
        code: the whole file.
    """

    id: str
    file: str
    lines: tuple[int, int]
    inside: bool
    change: str
    code: str


def _is_log(node: cst.CSTNode) -> bool:
    return m.matches(node, m.Call(func=m.Attribute(value=m.Name("logger"))))


def _is_a_crash(node: cst.CSTNode, changed: cst.CSTNode) -> bool:
    """Whether any test that comes by must notice: argument lists that fit nothing, None taken apart."""
    if isinstance(node, cst.Call) and isinstance(changed, cst.Call):
        if isinstance(node.func, cst.Name) and node.func.value in ("len", "isinstance"):
            return True
        gone = [a for a in node.args if a not in changed.args]
        return len(changed.args) < len(node.args) and gone[0].keyword is None
    return isinstance(node, cst.Assign) and isinstance(node.targets[0].target, cst.Tuple)


def _dropped(node: cst.SimpleStatementLine) -> Iterator[cst.CSTNode]:
    only = node.body[0] if len(node.body) == 1 else None
    call = isinstance(only, cst.Expr) and isinstance(only.value, cst.Call) and not _is_log(only.value)
    if call or isinstance(only, (cst.AugAssign, cst.Raise)):
        yield node.with_changes(body=[cst.Pass()])


def _negated(node: cst.If | cst.While | cst.CompIf) -> Iterator[cst.CSTNode]:
    if not isinstance(node.test, (cst.UnaryOperation, cst.Comparison)):  # mutmut has operators for these
        inner = node.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
        yield node.with_changes(test=cst.UnaryOperation(cst.Not(), inner))


def _never_entered(node: cst.For) -> Iterator[cst.CSTNode]:
    yield node.with_changes(iter=cst.Tuple([]))


_OWN = [
    (cst.SimpleStatementLine, _dropped),
    ((cst.If, cst.While, cst.CompIf), _negated),
    (cst.For, _never_entered),
]


class _Visitor(cst.CSTVisitor):
    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self) -> None:
        super().__init__()
        self.functions: list[cst.FunctionDef] = []
        self.found: list[tuple[cst.FunctionDef | None, tuple[int, int], cst.CSTNode, cst.CSTNode]] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.FunctionDef):
            self.functions.append(node)
        if isinstance(node, _PASSED_OVER) or _is_log(node):
            return False
        if not self._counts(node):
            return True
        for kind, operator in (*mutation_operators, *_OWN):
            if isinstance(node, kind):
                for changed in operator(node):
                    if _is_a_crash(node, changed):
                        continue
                    where = self.get_metadata(PositionProvider, node)
                    outer = self.functions[0] if self.functions else None
                    last = where.start.line if isinstance(node, cst.BaseCompoundStatement) else where.end.line
                    self.found.append((outer, (where.start.line, last), node, changed))
                    if isinstance(node, cst.BaseString):
                        break  # other cases of the same letters tell nothing more
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if isinstance(original_node, cst.FunctionDef):
            self.functions.pop()

    def _counts(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.SimpleString) and (" " in node.value or not node.value.strip("'\"")):
            return False  # a message, or an empty one
        return bool(self.functions) or isinstance(node, cst.BaseNumber)  # of constants their numbers


class Faulty:
    """All mutants of one file.

    Attributes:
        ids: of every mutant, in the order of the file; `build` makes one.
    """

    def __init__(self, root: Path, file: str) -> None:
        self.file, self._source = file, (root / file).read_text()
        # Nothing is changed in the tree, so no copy is needed, which would take as long as all the rest.
        wrapper = MetadataWrapper(cst.parse_module(self._source), unsafe_skip_copy=True)
        visitor = _Visitor()
        wrapper.visit(visitor)
        self._module, self._found = wrapper.module, visitor.found
        texts: dict[int, str] = {}
        counts: dict[str, int] = {}
        self.ids: list[str] = []
        for outer, lines, _, _ in self._found:
            if outer is None:
                around = self._source.splitlines()[lines[0] - 1]
            elif id(outer) in texts:
                around = texts[id(outer)]
            else:
                around = texts[id(outer)] = cst.Module([]).code_for_node(outer.with_changes(leading_lines=[]))
            number = counts[around] = counts.get(around, 0) + 1
            self.ids.append(hashlib.sha256(f"{file} {number} {around}".encode()).hexdigest()[:12])

    def build(self, place: int) -> Mutant:
        """The mutant at a place of `ids`."""
        outer, lines, node, changed = self._found[place]
        text = cst.ensure_type(self._module.deep_replace(node, changed), cst.Module).code
        diff = difflib.unified_diff(self._source.splitlines(), text.splitlines(), n=0, lineterm="")
        change = "\n".join(line for line in diff if line[:3] not in ("---", "+++") and line[:2] != "@@")
        return Mutant(self.ids[place], self.file, lines, outer is not None, change, text)
