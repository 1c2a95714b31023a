"""Annotations that are text: what their names mean where they stand."""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping
from typing import Any, Union

import typing_extensions

__all__ = ["module_names", "of_class", "resolved"]


def module_names(owner: Any) -> dict[str, Any]:
    """Return what names mean in the module that a class or an alias was made in."""
    module = sys.modules.get(getattr(owner, "__module__", None) or "")
    return {} if module is None else vars(module)


def resolved(text: str, names: Mapping[str, Any]) -> Any:
    """Return what an annotation in quotes stands for; parts of it may be in quotes again.

    Raises:
        Exception: Whatever it raises, ``NameError`` mostly.
    """
    tree = ast.parse(text.strip(), mode="eval")
    given = {**names}
    if sys.version_info < (3, 10):
        tree = ast.fix_missing_locations(_OldUnions().visit(tree))
        given[_OldUnions.name] = Union
    return eval(compile(tree, "<annotation>", "eval"), given)


def of_class(kind: type) -> dict[str, Any]:
    """Return the annotations of a class and its bases, resolved; parts of them may be in quotes still.

    Raises:
        Exception: See :func:`resolved`.
    """
    try:
        return typing_extensions.get_type_hints(kind, include_extras=True)
    except TypeError:
        if sys.version_info >= (3, 11):
            raise
    # Before 3.11 it takes no ``InitVar`` in quotes, and before 3.10 no ``int | None``.
    hints: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        names = {**module_names(base), **vars(base)}
        for name, hint in vars(base).get("__annotations__", {}).items():
            text = getattr(hint, "__forward_arg__", hint)  # a typed dictionary has made a ForwardRef of it
            hints[name] = resolved(text, names) if isinstance(text, str) else text
    return hints


class _OldUnions(ast.NodeTransformer):
    """``int | None`` as ``Union[int, None]``."""

    name = "__iii_sync_union"

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.op, ast.BitOr):
            return node
        both = ast.Tuple(elts=[node.left, node.right], ctx=ast.Load())
        return ast.Subscript(value=ast.Name(id=self.name, ctx=ast.Load()), slice=both, ctx=ast.Load())
