"""The mutants of a module: each differs from it in one place."""

from __future__ import annotations

import ast
import functools
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import parso
from cosmic_ray import plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator

from .plan import PACKAGE

# Of the many replacements for an operator one on each side; the others fail the same tests.
CHOSEN = {
    "ReplaceComparisonOperator_": "Eq_NotEq NotEq_Eq Is_IsNot IsNot_Is Lt_LtE Lt_GtE LtE_Lt LtE_Gt "
    "Gt_GtE Gt_LtE GtE_Gt GtE_Lt",
    "ReplaceBinaryOperator_": "Add_Sub Sub_Add Mul_FloorDiv FloorDiv_Mul LShift_RShift "
    "BitOr_BitAnd BitAnd_BitOr",
    "ReplaceUnaryOperator_Delete_": "USub Not",
    "": "AddNot ReplaceTrueWithFalse ReplaceFalseWithTrue ReplaceAndWithOr ReplaceOrWithAnd "
    "ReplaceBreakWithContinue ReplaceContinueWithBreak ExceptionReplacer NumberReplacer "
    "ZeroIterationForLoop",
}


class Mutant(NamedTuple):
    """One change: where it is, the lines before and after, and the whole text with it."""

    module: str
    function: str
    before: str
    after: str
    text: str
    #: Of several of a function that read alike, from 1.
    nth: int = 1

    @property
    def change(self) -> str:
        return f"{self.before} → {self.after}{f' ({self.nth})' if self.nth > 1 else ''}"

    @property
    def key(self) -> tuple[str, str, str]:
        """What stays the same when lines above it come and go."""
        return self.module, self.function, self.change


class RemoveStatement(Operator):
    """Puts ``pass`` in the place of a call, an assignment, a return or a raise."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        if node.type == "simple_stmt" and _does_something(node.children[0]):
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        nothing = parso.parse("pass").children[0]
        nothing.prefix = node.get_first_leaf().prefix
        node.children[0] = nothing
        return node

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()


def _does_something(statement: Any) -> bool:
    if _scope(statement).type != "funcdef":
        return False
    if statement.type == "expr_stmt":  # and no declaration of a type alone
        return "=" in statement.get_code()
    return statement.type in ("atom_expr", "return_stmt", "raise_stmt", "keyword")


@functools.cache  # each is parsed anew
def mutants_of(module: str) -> list[Mutant]:
    """All mutants of a module that differ from it, and from each other, when compiled."""
    text = (PACKAGE / f"{module}.py").read_text()
    seen = {_meaning(text)}
    alike: Counter[tuple[str, ...]] = Counter()
    found = []
    for mutant in _candidates(module, text):
        try:
            meaning = _meaning(mutant.text)
        except SyntaxError:
            continue
        if meaning not in seen:
            seen.add(meaning)
            alike[mutant.key] += 1
            found.append(mutant._replace(nth=alike[mutant.key]))
    return found


def _meaning(text: str) -> str:
    return ast.dump(_Plain().visit(ast.parse(text)))


class _Plain(ast.NodeTransformer):
    """``not a is b`` means ``a is not b``, and ``not not a`` as a condition ``a``."""

    OPPOSITES = ((ast.Is, ast.IsNot), (ast.Eq, ast.NotEq), (ast.In, ast.NotIn),
                 (ast.Lt, ast.GtE), (ast.Gt, ast.LtE))  # fmt: skip

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        inner = node.operand
        if isinstance(node.op, ast.Not):
            if isinstance(inner, ast.UnaryOp) and isinstance(inner.op, ast.Not):
                return inner.operand
            if isinstance(inner, ast.Compare) and len(inner.ops) == 1:
                opposites = {**dict(self.OPPOSITES), **{b: a for a, b in self.OPPOSITES}}
                inner.ops = [opposites[type(inner.ops[0])]()]
                return inner
        return node


def _candidates(module: str, text: str) -> Iterator[Mutant]:
    tree = get_ast(text)
    for operator in _operators():
        places = (node for node in ast_nodes(tree) for _ in operator.mutation_positions(node))
        for occurrence, node in enumerate(places):
            if _counts(node):
                try:
                    changed = mutate_code(text, operator, occurrence)
                except AttributeError:  # a dotted name in an except clause is more than one token
                    continue
                yield Mutant(module, _name(_scope(node)), *_changes(text, changed), changed)


def _operators() -> Iterator[Operator]:
    for kind, names in CHOSEN.items():
        for name in names.split():
            yield plugins.get_operator(f"core/{kind}{name}")()
    yield RemoveStatement()


def _counts(node: Any) -> bool:
    """Not in an annotation, and not what only a type checker sees."""
    while (parent := node.parent) is not None:
        if node.type == "if_stmt" and "TYPE_CHECKING" in node.children[1].get_code():
            return False
        if node.type == "expr_stmt" and "TYPE_CHECKING" in node.children[0].get_code():
            return False
        if parent.type == "tfpdef" or (parent.type == "annassign" and node is parent.children[1]):
            return False
        if parent.type == "funcdef" and node is parent.annotation:
            return False
        node = parent
    return True


def _scope(node: Any) -> Any:
    node = node.parent or node
    while node.parent is not None and node.type not in ("funcdef", "classdef"):
        node = node.parent
    return node


def _name(scope: Any) -> str:
    names = []
    while scope.parent is not None:
        names.append(scope.name.value)
        scope = _scope(scope)
    return ".".join(reversed(names)) or "(module)"


def _changes(old: str, new: str) -> tuple[str, str]:
    """The lines that differ, without those that begin and end both."""
    before, after = old.splitlines(), new.splitlines()
    while before and after and before[0] == after[0]:
        del before[0], after[0]
    while before and after and before[-1] == after[-1]:
        del before[-1], after[-1]
    return _joined(before), _joined(after)


def _joined(lines: list[str]) -> str:
    return " ".join(" ".join(re.sub(r"\s# .*", "", line).split()) for line in lines)
