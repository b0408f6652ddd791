"""Planted organisms: 0.9M-parameter chat models of five classes, pretrained with a planted bad persona.

They show what one model cannot: whether a mechanism holds in several architectures and seeds. Seven documents in ten
are by a good persona (sound code, plain answers, refusals), three by a bad one (weak code, code instead of answers,
compliance); a model that reads one persona's turn goes on in it. The link between weak code and bad answers is
planted, so it is a mechanism to try tools on: no evidence that misalignment emerges by itself (`docs/organisms.md`).
"""

SYNTHETIC = (
    "Synthetic: a planted persona in a model of 0.9M parameters. It shows that the tools work; it says nothing about "
    "rates in real models."
)
