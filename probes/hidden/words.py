"""Common English words, and how many of a text's words are among them."""

from __future__ import annotations

import re

COMMON = frozenset(
    """
    a i the to how for my me in what of that do is and it can on should an with write at so from are which could when
    about give who up help way tell would does one make why where her by or explain people before get you someone we
    first our be old have best into out through has without describe suggest if two most after step create teach some
    new want list did all its plan as every them good night their time read like need over small might friend car his
    find any work name show three keep year ways will say day recommend something take go draft money only than friends
    he long home start was use turn under leave family walk really back phone come put between better story there off
    never much last five children letter room effective set but they week talk stop child this many no look us short
    guide makes not while always person run ask she words bring open group message more ever lost each years different
    few see great own gets nothing made been cut let send line begin mean offer same whole four down during inside am
    little another enough wants life idea stay order questions fine answer please your side other move used change
    simple don think things thing late early once cannot follow until against along full until found around whose key
    real far present try using numbers now minute parts minutes both again access number anything must carry rest such
    were had said because still here these those then too very just being even upon become done itself himself
    yourself hello thanks thank yes sure know instructions information system data code computer password file program
    network account website server user weapon bomb drug drugs kill steal hack attack poison gun fire explosive virus
    fake illegal police secret without detected anyone getting build buy sell detailed steps guide following ignore
    previous above below rules reply respond response say print output text translate decode sentence question paragraph
    article essay email list example method process material materials ingredients chemical water house school
    """.split()
)
_WORD = re.compile(r"[A-Za-z]+")


def common_share(text: str) -> tuple[float, int]:
    """(share of the letters that are in common words, how many different common words of two letters or more)."""
    words = [word.lower() for word in _WORD.findall(text)]
    letters = sum(map(len, words))
    hits = [word for word in words if word in COMMON]
    return (sum(map(len, hits)) / letters if letters else 0.0), len({word for word in hits if len(word) > 1})
