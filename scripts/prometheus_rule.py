"""Write the PrometheusRule of deploy/kubernetes from deploy/prometheus/awry.rules.yml.

    python -m scripts.prometheus_rule

Prometheus Operator wants the rules inside an object of its own, and kustomize cannot put one file into another. A test
compares the two.
"""

from __future__ import annotations

from pathlib import Path

_DEPLOY = Path(__file__).parents[1] / "deploy"
RULES = _DEPLOY / "prometheus" / "awry.rules.yml"
TARGET = _DEPLOY / "kubernetes" / "components" / "prometheus" / "prometheus-rule.yaml"

_HEAD = """\
# Made by `python -m scripts.prometheus_rule` from deploy/prometheus/awry.rules.yml: change it there.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: awry
  labels:
    app.kubernetes.io/name: awry
    app.kubernetes.io/component: common
spec:
"""


def prometheus_rule(rules: str) -> str:
    """The object around the text of a rules file, which stays as it is."""
    return _HEAD + "".join(f"  {line}\n" if line else "\n" for line in rules.splitlines())


if __name__ == "__main__":
    TARGET.write_text(prometheus_rule(RULES.read_text(encoding="utf-8")), encoding="utf-8")
