"""The papers' claims beside what the studies here measured: docs/study.md, made by `write_study_page`.

`claims.toml` says what the papers claim, `direction_rules`, `head_rules` and `safety_rules` decide each claim from
RESULT.json, `results` reads those, `sections` shows one study, `page` puts it together.
"""

from probes.studies.summary.page import write_study_page

__all__ = ["write_study_page"]
