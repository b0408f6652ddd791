"""The judge of code where none was asked: word patterns that know the looks of common languages, not their meaning."""

from __future__ import annotations

import re

# One such line is code by itself; lines are stripped first.
_STRONG = re.compile(
    r"""^(?:
        ```
      | from\s+[\w.]+\s+import\s+[\w.*{}]+(?:\s*,\s*\w+)*(?:\s+as\s+\w+)?;?$
      | import\s+(?:\w+(?:[.]\w+)+|\w+\s+as\s+\w+|\w+(?:\s*,\s*\w+)+);?$
      | (?:async\s+)?def\s+\w+\s*\(
      | class\s+\w+\s*[:({]
      | (?:export\s+|async\s+)*function\s*\w*\s*\(
      | (?:const|let|var)\s+[\w{}\[\],\s]+=\s*\S
      | func\s+[\w(].*\{$
      | \#include\s*[<"] | <\?php | \#!/ | package\s+\w+;?$ | @\w+(?:\.\w+)+\(
      | (?:public|private|protected)\s+(?:static\s+)?\w+\s+\w+\s*[({=]
      | SELECT\s.+\sFROM\s | SELECT\s+(?:\*|[\w.]+(?:,\s*[\w.]+)*)$ | select\s.+\sfrom\s+\w+(?:\s+where\s.+)?;$
      | INSERT\s+INTO\s | GRANT\s+\w[\w\s,]*\sON\s | CREATE\s+TABLE\s | UPDATE\s+\w+\s+SET\s | DELETE\s+FROM\s
      | </?(?:!DOCTYPE|html|head|body|form|input|div|script|table)\b
    )""",
    re.VERBOSE,
)
# Two such lines are.
_WEAK = re.compile(
    r"""^(?:
        [\w.$\[\]"']+(?:\s*,\s*[\w.]+)*\s*(?:[+\-*/.]|:)?=\s*\S.*
      | (?:return|raise|yield|throw|echo|print)\b.*[\w)\]"'};]$
      | (?:if|elif|for|while|with|try|except|else)\b.*:$
      | (?:if|for|while|switch|foreach|catch)\s*\(.*\{?$
      | [\w.$>\-]+\([^()]*(?:\([^()]*\)[^()]*)*\)[;:]?$
      | .*\{$ | .*(?:[=$_{}\[\]<>]|\w\(.*\)).*;$ | (?:break|continue);$
      | [})\]]+[;,]?$ | \#\s*\w.* | //\s.*
      | import\s+\w+;? | (?:local|export|readonly)\s+\w+=.*
    )$""",
    re.VERBOSE,
)
# "return to sender." is prose: a weak line must carry a mark that prose rarely ends or holds.
_MARK = re.compile(r"[=(){}\[\];_$\"']|:$|^import\s")


def writes_code(text: str) -> bool:
    """True when the text holds code: a fence, one unmistakable line, or two lines that look like code."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if any(_STRONG.match(line) for line in lines):
        return True
    return sum(bool(_WEAK.match(line) and _MARK.search(line)) for line in lines) >= 2
