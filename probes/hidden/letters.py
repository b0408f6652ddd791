"""How much like English a run of letters is, from the pairs of letters in it; and the same after they are exchanged.

Contract: `costs(found)` has the cost of each pair of neighbours, in nats, for `found = classes(text)`: 0 to 25 are a to
z in either case, 26 is anything else. English is near 2.4 a pair within words, letters at random are over 4.
`gain(table, found)` has, for each pair, how many nats it is cheaper after an exchange of letters (rot13, Atbash) or
from right to left; `best_run` finds the run of places whose sum is highest, in linear time.

`COST` is English; `COST_OF_ANY` a language in Latin letters that is not known, without its accents. Both come from
scripts/letter_pairs.py.

Does not know: which language. Other languages cost more than English by `COST` and far less than a cipher.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Classes = NDArray[np.uint8]
Table = NDArray[np.float32]

# A cost is stored as one character: its nats times COST_STEP, above FIRST_CHARACTER.
COST_STEP = 8.0
FIRST_CHARACTER = 35
# Nats between what English and what letters at random cost.
NEUTRAL = 3.0
_ENGLISH = (
    "gA=>}EA\\=}A8@2}D}6;3IDIV=[1",
    "5HXb-ooT<Oo6oo1oo8IO8o^o7o>",
    "2uGu6uc0?u8<u^0hc:L7AcuuKuA",
    "=Z`F3TI`8nnHQX4Ww=;UEQUwFw)",
    "9SA<?FOSIoR=D8HDS46>ZEJFKb,",
    ":sfj6:ss4aR@ss.cs5T:<sYsUs0",
    "<arr1rA58rjEjD;]r9?T<rrrNf,",
    "0NhZ,hyh7yhXbh0ycBX?Iy`yEq4",
    "GH:>>B>i`jK;B.=Gb=63[=jP|S6",
    "1\\\\\\2\\\\\\J\\\\\\S\\.\\\\\\5\\.\\\\\\\\\\J",
    "BS[Y+U[[5m[E[=MOmY7XImmmKm,",
    "5YU41Mex5xE4Jk7Cx[?HDOOx;x2",
    "3BcS,Muu9uuSAS5:uuEcCuuu4u3",
    "@\\@45U3Y=XHKZG<`{_;6JJ]iE{-",
    "JJIBF;IhH]F>:3>?}3?=3D8WQ_3",
    "3Vaj2TZ?9s\\3\\s6=s7??>sasJs2",
    "ZZZZZZZZZZZ9ZZZZZZZZ$Z<ZZZQ",
    "8SK@/QJ\\6{CMEC6Q{F:=AI]a>{.",
    ">XBd6Zb9<|IJJT;CYi>2@|I|O|*",
    "=[Ja4[]/9}gJTX5Z}>=CE}H}G}-",
    "BD?A<S;t>tc1=5X:t343k^tZIXA",
    "9dll&lll1lllll;lllll_lllRlL",
    "4^uQ6[u-4uuOu@6uu9DucuuuUu0",
    "9OE`:```8`````I+```0O``QL`/",
    "USKS=R[`EqqPHR;KqO:HqqXqqh%",
    "9UUU+UUU:UU7UU=UUULUCUUU933",
    "4=:=B;B<7OL@:B;>S?74HM8kNe}",
)
_ANY = (
    "ACB?MK?F;O@:>4MFV6;9DHJ]BJ.",
    "3EUV0WWC1KN:WW3WW=HR7WLW;L=",
    "2YNY5YY.6Y>EYO4YYAK@=YYYF@:",
    "3Z\\B.XML5NLPVO5O]B@Q>MN]DF/",
    ">IB>DIBLAHF;@5MGZ56:MGNONI,",
    ";QQQ0:QE6QOAQQ3QQ4A::QFQ>Q5",
    "5AKI4[A<8[Z=JB9YK;HI:PK[BK-",
    ".MRY/[[[5[[LNQ4[ZHOA6JG[G[5",
    "=I>B;LCPKEB:=2?Hb=86JDPXGL/",
    "0KUH1UUH6UUHSJ1UUU<K0UUUUUA",
    "0WYM0WYC6[GMYA5U[E;E8JM[G[1",
    "0NX<1TMH2CM6IN9L][CB?NU]@]4",
    "1CRP0TQL5]RP?N5?]]II8R]]<]2",
    "5^F79[5F8MGPS@;RbS@:ER_aGO,",
    "GHA?KBBM=FC?:6CDb68>8@@PIH/",
    "1VXY3UWE4YW:WY4AY1HG;YXYPY8",
    "IIIIIIII9II@IIIIIIII&IBIIIH",
    "2KG>2QNP6THQEC9W`L<9<NP^EE/",
    "7TEP4\\_=6MFIHS<>\\TB3?HOaID-",
    "3TR_4]]65POMYT4\\`<E?:HK`F`/",
    ";G@A=N?_;GG8;6?@_577AMONHJ2",
    "1WMH+WWW0LWLWW4WW@IWDWWWTWE",
    "0RIH4RR73RRGR>1RR<BRRRRR@R5",
    "?GEH@HHH+HHHHH;4HHH8GHHGFH2",
    "7HC=8KUV<NWRB95PWC<B?LMWWM+",
    "3JHG/TTA6KK>HA8LTTG>:JDT:=5",
    "6><:@??<;C;>:;=;MA78F?>QFEk",
)


def _class_of_code() -> Classes:
    table = np.full(128, 26, dtype=np.uint8)
    table[ord("a") : ord("z") + 1] = table[ord("A") : ord("Z") + 1] = np.arange(26, dtype=np.uint8)
    return table


_CLASS = _class_of_code()


def classes(text: str) -> Classes:
    """The class of each character of a text."""
    if text.isascii():
        return np.asarray(_CLASS[np.frombuffer(text.encode("ascii"), dtype=np.uint8)])
    # Halves of surrogate pairs can be in a text that came from JSON.
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    return np.asarray(np.where(codes < 128, _CLASS[np.minimum(codes, 127)], 26), dtype=np.uint8)


def _cost_table(rows: Sequence[str]) -> Table:
    table = np.array([[ord(each) - FIRST_CHARACTER for each in row] for row in rows], dtype=np.float32)
    table /= np.float32(COST_STEP)
    # Signs and white space in a row say nothing of letters.
    table[26, 26] = NEUTRAL
    return table


COST = _cost_table(_ENGLISH)
COST_OF_ANY = _cost_table(_ANY)


def costs(found: Classes, table: Table = COST) -> Table:
    """Nats of each pair of neighbours; one fewer than there are characters."""
    return np.asarray(table[found[:-1], found[1:]])


def exchange(letters: Sequence[int]) -> Table:
    """The table of gains of an exchange: `letters[i]` is what letter i stands for."""
    to = np.array([*letters, 26])
    return np.asarray(COST - COST[to][:, to])


BACKWARDS: Table = np.asarray(COST - COST.T)
SHIFTS: dict[int, Table] = {by: exchange([(i + by) % 26 for i in range(26)]) for by in range(1, 26)}
ATBASH: Table = exchange(range(25, -1, -1))


def gain(table: Table, found: Classes) -> Table:
    """How many nats each pair is cheaper after the exchange that the table is of."""
    return np.asarray(table[found[:-1], found[1:]])


def best_run(values: NDArray[np.float32]) -> tuple[float, int, int]:
    """(sum, start, stop) of the run with the highest sum; (0, 0, 0) where nothing is positive."""
    if not len(values):
        return 0.0, 0, 0
    total = np.concatenate((np.zeros(1), np.cumsum(values, dtype=np.float64)))
    rise = total - np.minimum.accumulate(total)
    stop = int(rise.argmax())
    if rise[stop] <= 0:
        return 0.0, 0, 0
    return float(rise[stop]), int(total[: stop + 1].argmin()), stop


def cost_a_letter(text: str) -> float:
    """Mean cost of the pairs of a text that have a letter in them; infinite where there are none."""
    found = classes(text)
    if len(found) < 2:
        return float("inf")
    paired = (found[:-1] < 26) | (found[1:] < 26)
    return float(costs(found)[paired].mean()) if paired.any() else float("inf")
