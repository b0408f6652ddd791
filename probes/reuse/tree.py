"""A radix tree of token ids: which beginnings messages had in common, and what is kept of them.

Contract: `add(ids)` remembers a sequence in whole blocks of BLOCK tokens and says whether it goes on from a whole
earlier one, as a conversation does; `path(ids)` gives its nodes from the start. A node is a stretch of tokens between
two places where sequences part; it counts the sequences that came through and may hold something of type `Splits`,
which is split with it. Equality is that of ids, never of hashes.

What is held is bounded in bytes by `make_room`, and what is only remembered in bytes of ids; the least recently used
goes first, and a node goes after those behind it.

Pure: knows no tensors, no clock but its own count. Units: tokens; ids are packed as 4 bytes each (`packed`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic, Protocol, Self, TypeVar

import numpy as np

BLOCK = 4
_WIDTH = 4
_STEP = BLOCK * _WIDTH
# Of one place at most so many ends of sequences are remembered.
_MOST_ENDS = 16


class Splits(Protocol):
    """What a node may hold."""

    @property
    def nbytes(self) -> int: ...

    def split(self, tokens: int) -> tuple[Self, Self]:
        """The first so many tokens, and the rest."""
        ...


T = TypeVar("T", bound=Splits)


def packed(ids: Sequence[int]) -> bytes:
    """Token ids as bytes: a beginning of the ids is a beginning of the bytes."""
    return np.asarray(ids, dtype=np.int32).tobytes()


class Node(Generic[T]):
    """A stretch of tokens behind its parent's."""

    __slots__ = ("children", "ends", "held", "ids", "parent", "passed", "used")

    def __init__(self, ids: bytes, parent: Node[T] | None) -> None:
        self.ids = ids
        self.parent = parent
        self.children: dict[bytes, Node[T]] = {}
        # What sequences that ended behind this node had left of a block.
        self.ends: dict[bytes, None] = {}
        self.passed = 0
        self.used = 0
        self.held: T | None = None

    @property
    def tokens(self) -> int:
        return len(self.ids) // _WIDTH


class TokenTree(Generic[T]):
    """See the module. `held_bytes` is what all nodes hold."""

    def __init__(self, max_ids_bytes: int = 32 * 1024 * 1024) -> None:
        self._root: Node[T] = Node(b"", None)
        self._max_ids_bytes = max_ids_bytes
        self._ids_bytes = 0
        self._holding: set[Node[T]] = set()
        self.held_bytes = 0
        self.clock = 0

    def add(self, ids: bytes) -> bool:
        """Remember a sequence; whether it is longer than a whole earlier one that it begins with."""
        self.clock += 1
        end = len(ids) - len(ids) % _STEP
        node, place, goes_on = self._root, 0, False
        while place < end:
            child = node.children.get(ids[place : place + _STEP])
            if child is None:
                child = Node(ids[place:end], node)
                node.children[child.ids[:_STEP]] = child
                self._ids_bytes += len(child.ids)
            else:
                same = _in_common(child.ids, ids, place, end)
                if same < len(child.ids):
                    child = self._split(child, same)
            node, place = child, place + len(child.ids)
            node.passed += 1
            node.used = self.clock
            goes_on = goes_on or any(ids.startswith(left, place) and place + len(left) < len(ids) for left in node.ends)
        if node is not self._root and len(node.ends) < _MOST_ENDS:
            node.ends[ids[end:]] = None
        return goes_on

    def path(self, ids: bytes) -> list[Node[T]]:
        """The nodes of a sequence that was added, in order; they cover its whole blocks."""
        end = len(ids) - len(ids) % _STEP
        found, node, place = [], self._root, 0
        while place < end:
            node = node.children[ids[place : place + _STEP]]
            found.append(node)
            place += len(node.ids)
        return found

    def hold(self, node: Node[T], held: T) -> None:
        """Keep this for a node's tokens. Those before it must be held."""
        node.held = held
        self._holding.add(node)
        self.held_bytes += held.nbytes

    def make_room(self, size: int, limit: int, since: int) -> bool:
        """Let go of what is held and was not used after clock `since` until `size` more bytes stay within `limit`."""
        while self.held_bytes + size > limit:
            old = [n for n in self._holding if n.used <= since and not any(c.held for c in n.children.values())]
            if not old:
                return False
            # A tenth at once: a search for each would be quadratic.
            goal = min(limit - size, int(0.9 * limit))
            for node in sorted(old, key=lambda n: n.used):
                if self.held_bytes <= goal:
                    break
                self._let_go(node)
        return True

    def forget_old(self) -> None:
        """Forget the least recently used sequences of which nothing is held, where there are too many."""
        while self._ids_bytes > self._max_ids_bytes:
            leaves = [n for n in self._nodes() if not n.children and n.held is None]
            if not leaves:
                return
            for node in sorted(leaves, key=lambda n: n.used):
                if self._ids_bytes <= 0.9 * self._max_ids_bytes:
                    break
                _above(node).children.pop(node.ids[:_STEP])
                self._ids_bytes -= len(node.ids)

    def _let_go(self, node: Node[T]) -> None:
        self.held_bytes -= node.held.nbytes if node.held is not None else 0
        node.held = None
        self._holding.discard(node)

    def _split(self, node: Node[T], place: int) -> Node[T]:
        """Cut a node in two and give the upper one."""
        parent = _above(node)
        upper: Node[T] = Node(node.ids[:place], parent)
        upper.passed, upper.used = node.passed, node.used
        parent.children[upper.ids[:_STEP]] = upper
        node.ids, node.parent = node.ids[place:], upper
        upper.children[node.ids[:_STEP]] = node
        if node.held is not None:
            self.held_bytes -= node.held.nbytes
            upper.held, node.held = node.held.split(upper.tokens)
            self.held_bytes += upper.held.nbytes + node.held.nbytes
            self._holding.add(upper)
        return upper

    def _nodes(self) -> Iterator[Node[T]]:
        waiting = list(self._root.children.values())
        while waiting:
            node = waiting.pop()
            yield node
            waiting += node.children.values()


def _above(node: Node[T]) -> Node[T]:
    if node.parent is None:
        raise ValueError("the root of a tree of tokens has no tokens")
    return node.parent


def _in_common(own: bytes, ids: bytes, place: int, end: int) -> int:
    """Bytes of `own` that `ids` has from `place`, in whole blocks."""
    most = min(len(own), end - place)
    if own[:most] == ids[place : place + most]:
        return most
    mine = np.frombuffer(own, dtype=np.int32, count=most // _WIDTH)
    theirs = np.frombuffer(ids, dtype=np.int32, count=most // _WIDTH, offset=place)
    same = int(np.argmax(mine != theirs))
    return same // BLOCK * _STEP
