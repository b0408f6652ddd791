"""The tree of token ids against a plain list of sequences."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from probes.reuse.tree import BLOCK, TokenTree, packed


@dataclass(frozen=True)
class Ids:
    """Held for a stretch of tokens: the tokens themselves, 10 bytes each."""

    ids: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return 10 * len(self.ids)

    def split(self, tokens: int) -> tuple[Ids, Ids]:
        return Ids(self.ids[:tokens]), Ids(self.ids[tokens:])


# Few letters in blocks, so that sequences have beginnings in common; lengths that are no whole blocks.
sequences = st.lists(
    st.builds(
        lambda blocks, rest: tuple(x for b in blocks for x in (b,) * BLOCK) + rest,
        st.lists(st.integers(0, 2), max_size=5),
        st.lists(st.integers(0, 2), max_size=BLOCK - 1).map(tuple),
    ),
    max_size=12,
)


def hold_all(tree: TokenTree[Ids], ids: tuple[int, ...]) -> None:
    place = 0
    for node in tree.path(packed(ids)):
        if node.held is None:
            tree.hold(node, Ids(ids[place : place + node.tokens]))
        place += node.tokens


def held_in(tree: TokenTree[Ids], ids: tuple[int, ...]) -> tuple[int, ...]:
    found: tuple[int, ...] = ()
    for node in tree.path(packed(ids)):
        if node.held is None:
            break
        found += node.held.ids
    return found


@given(sequences)
def test_paths_cover_whole_blocks_and_what_is_held_is_split_with_its_node(added: list[tuple[int, ...]]) -> None:
    tree: TokenTree[Ids] = TokenTree()
    for ids in added:
        tree.add(packed(ids))
        hold_all(tree, ids)
    for ids in added:
        whole = len(ids) // BLOCK * BLOCK
        path = tree.path(packed(ids))
        assert b"".join(node.ids for node in path) == packed(ids[:whole])
        assert held_in(tree, ids) == ids[:whole]
    beginnings = {ids[:n] for ids in added for n in range(BLOCK, len(ids) + 1, BLOCK)}
    assert tree.held_bytes == 10 * BLOCK * len(beginnings)


@given(sequences)
def test_a_node_counts_who_came_through_and_a_sequence_that_goes_on_is_told(added: list[tuple[int, ...]]) -> None:
    tree: TokenTree[Ids] = TokenTree()
    before: list[tuple[int, ...]] = []
    for ids in added:
        # Ends of less than a block are not remembered: nothing could be kept of them.
        goes_on = any(BLOCK <= len(old) < len(ids) and ids[: len(old)] == old for old in before)
        assert tree.add(packed(ids)) == goes_on
        before.append(ids)
        place = 0
        for node in tree.path(packed(ids)):
            place += node.tokens
            assert node.passed == sum(old[:place] == ids[:place] and len(old) >= place for old in before)


@given(sequences, st.integers(0, 2000), st.integers(0, 2000))
def test_what_is_held_stays_within_the_limit(added: list[tuple[int, ...]], limit: int, size: int) -> None:
    tree: TokenTree[Ids] = TokenTree()
    for ids in added:
        tree.add(packed(ids))
        hold_all(tree, ids)
    last = tree.clock - 1
    made = tree.make_room(size, limit, last)
    if made:
        assert tree.held_bytes + size <= limit
    # What the last sequence uses is kept, and nothing is held behind a node that is not.
    assert not added or held_in(tree, added[-1]) == added[-1][: len(added[-1]) // BLOCK * BLOCK]
    for ids in added:
        path = tree.path(packed(ids))
        assert [n.held is None for n in path] == sorted(n.held is None for n in path)


def test_old_sequences_are_forgotten_and_held_ones_are_not() -> None:
    tree: TokenTree[Ids] = TokenTree(max_ids_bytes=100 * BLOCK * 4)
    kept = (9,) * BLOCK
    tree.add(packed(kept))
    hold_all(tree, kept)
    for n in range(500):
        tree.add(packed((n,) * BLOCK))
        tree.forget_old()
    assert held_in(tree, kept) == kept
    assert len(list(tree._nodes())) <= 100
    # The latest are remembered.
    assert tree.add(packed((499,) * BLOCK + (1,)))
