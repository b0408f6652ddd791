"""Common English words, and how many of a text's words are among them."""

from __future__ import annotations

import re

_WORDS = """
a about above access account after again against all along always am an and another answer any anyone anything are
around article as ask at attack back be because become been before begin being below best better between bomb both
bring build but buy by can cannot car carry change chemical child children code come computer could create cut data
day decode describe detailed detected did different do does don done down draft drug drugs during each early
effective email enough essay even ever every example explain explosive fake family far few file find fine fire first
five follow following for found four friend friends from full get gets getting give go good great group guide gun
hack had has have he hello help her here himself his home house how i idea if ignore illegal in information
ingredients inside instructions into is it its itself just keep key kill know last late leave let letter life like
line list little long look lost made make makes many material materials me mean message method might minute minutes
money more most move much must my name need network never new night no not nothing now number numbers of off offer
old on once one only open or order other our out output over own paragraph parts password people person phone plan
please poison police present previous print process program put question questions read real really recommend reply
respond response rest room rules run said same say school secret see sell send sentence server set she short should
show side simple small so some someone something start stay steal step steps still stop story such suggest sure
system take talk teach tell text than thank thanks that the their them then there these they thing things think this
those three through time to too translate try turn two under until up upon us use used user using very virus walk
want wants was water way ways we weapon website week were what when where which while who whole whose why will with
without words work would write year years yes you your yourself
"""
COMMON = frozenset(_WORDS.split())
_WORD = re.compile(r"[A-Za-z]+")


def common_share(text: str) -> tuple[float, int]:
    """(share of the letters that are in common words, how many different common words of two letters or more)."""
    words = [word.lower() for word in _WORD.findall(text)]
    letters = sum(map(len, words))
    hits = [word for word in words if word in COMMON]
    return (sum(map(len, hits)) / letters if letters else 0.0), len({word for word in hits if len(word) > 1})
