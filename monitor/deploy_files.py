"""The deployment files that the wheel brings: rules, Prometheus, PostgreSQL roles, Grafana, Kafka, Kubernetes.

Contract: `files()` is every file of the repository's folder deploy/ by its path below it; `write(folder)` copies those
that are missing and returns their paths. A file that is there with another content was changed by somebody: then
nothing is written, and the error names it. Raises DeployError.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from monitor.errors import MonitorError


class DeployError(MonitorError):
    """Deployment files that cannot be written."""


def files() -> dict[str, Path]:
    """Each file by its path below deploy/."""
    # In the wheel the folder is beside this module (pyproject.toml), in a checkout at its root.
    here = Path(__file__)
    root = next((f for f in (here.with_name("deploy"), here.parents[1] / "deploy") if f.is_dir()), None)
    if root is None:
        raise DeployError("deploy: this installation of awry has no deployment files; install its wheel again")
    return {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}


def write(folder: Path) -> list[Path]:
    """Copy what is missing below `folder`."""
    found = files()
    try:
        changed = [n for n, path in found.items() if (folder / n).exists() and not _same(path, folder / n)]
        if changed:
            raise DeployError(
                f"deploy: {folder} has changes of its own ({', '.join(changed[:5])}), nothing was written; "
                "give an empty folder and compare"
            )
        written = []
        for name, path in found.items():
            target = folder / name
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)
                written.append(target)
    except OSError as error:
        raise DeployError(f"deploy: cannot write to {error.filename or folder}: {error.strerror}") from error
    return written


def _same(original: Path, copy: Path) -> bool:
    return copy.is_file() and copy.read_bytes() == original.read_bytes()
