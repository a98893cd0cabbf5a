"""Check the built wheel and sdist, install the wheel into an empty environment and run the demo there.

    python scripts/check_dist.py dist [--demo]

Checks metadata (twine), contents and size. With --demo, the wheel is installed into a temporary virtual environment (its
dependencies come from the package index, at the versions of constraints.txt) whose site-packages are then made read-only; the demo
runs in another folder, without network, and, if this process is root, as the user "nobody", or without the capabilities of root where
"nobody" cannot run the interpreter, as below /root.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

MAX_MEGABYTES = 40
REQUIRED = (
    "sccello_tools/py.typed",
    "sccello_tools/cli/report/page.html",
    "sccello_tools/resources/weights_manifest.json",
    "sccello_tools/resources/models/sccello-small/model.safetensors",
    "sccello_tools/resources/models/sccello-small/annotation.safetensors",
    "sccello_tools/resources/models/sccello-small/README.md",
    "sccello_tools/resources/cells/pancreas_tritschler.h5ad",
)
FORBIDDEN = ("tests/", "docs/", "benchmarks/", ".venv/", "__pycache__", "runs/")
ROOT = Path(__file__).parents[1]


def check_contents(wheel: Path, sdist: Path) -> None:
    """Check that everything needed is there, nothing else is, and the wheel is small enough."""
    names = zipfile.ZipFile(wheel).namelist()
    if missing := [name for name in REQUIRED if name not in names]:
        sys.exit(f"{wheel.name} lacks {missing}")
    if extra := [name for name in names if any(part in name for part in FORBIDDEN)]:
        sys.exit(f"{wheel.name} contains {extra[:5]}")
    megabytes = wheel.stat().st_size / 1e6
    if megabytes > MAX_MEGABYTES:
        sys.exit(f"{wheel.name} has {megabytes:.1f} MB, at most {MAX_MEGABYTES} are allowed")
    with tarfile.open(sdist) as archive:
        inside = {name.split("/", 1)[-1] for name in archive.getnames()}
    if (
        lacking := {"pyproject.toml", "README.md", "LICENSE", "src/sccello_tools/__init__.py"}
        - inside
    ):
        sys.exit(f"{sdist.name} lacks {sorted(lacking)}")
    print(
        f"{wheel.name}: {megabytes:.1f} MB, {len(names)} files; {sdist.name}: {sdist.stat().st_size / 1e6:.1f} MB"
    )


def without_privileges(python: Path) -> tuple[list[str], dict[str, str]]:
    """Prefix and options of a command for which permissions count, also if this process is root."""
    if os.name != "posix" or os.geteuid():
        return [], {}
    try:
        subprocess.run([python, "-c", ""], check=True, cwd="/", user="nobody", capture_output=True)
    except (PermissionError, subprocess.CalledProcessError):
        return ["setpriv", "--inh-caps=-all", "--bounding-set=-all"], {}
    return [], {"user": "nobody"}


def run_demo(wheel: Path) -> None:
    """Install the wheel into a new environment and run the demo with read-only site-packages, offline, as another user."""
    with tempfile.TemporaryDirectory(prefix="sccello-dist-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        venv.create(folder / "env", with_pip=True)
        python = folder / "env" / "bin" / "python"
        pip = [python, "-m", "pip", "install", "-qq", "-c", ROOT / "constraints.txt"]
        subprocess.run([*pip, "torch"], check=True)
        subprocess.run([*pip, wheel], check=True)
        subprocess.run(["chmod", "-R", "a+rX,a-w", folder / "env"], check=True)
        work = folder / "work"
        work.mkdir(mode=0o777)
        work.chmod(0o777)
        environment = {
            **{k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}},
            "HOME": str(work),
            "NUMBA_CACHE_DIR": str(work / "numba"),
            "MPLCONFIGDIR": str(work / "matplotlib"),
            "SCCELLO_OFFLINE": "1",
            "HF_HUB_OFFLINE": "1",
            "http_proxy": "http://127.0.0.1:9",
            "https_proxy": "http://127.0.0.1:9",
        }
        prefix, other_user = without_privileges(python)
        done = subprocess.run(
            [*prefix, folder / "env" / "bin" / "sccello", "demo", "-o", work / "figures"],
            cwd=work,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            **other_user,
        )
        if done.returncode:
            sys.exit(f"the demo failed from the wheel:\n{done.stdout}\n{done.stderr}")
        figures = sorted(path.name for path in (work / "figures").iterdir())
        print(f"demo from the wheel: {len(figures)} files ({', '.join(figures)})")
        subprocess.run(["chmod", "-R", "u+w", folder], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dist", type=Path)
    parser.add_argument("--demo", action="store_true")
    args = parser.parse_args()
    (wheel,) = args.dist.glob("*.whl")
    (sdist,) = args.dist.glob("*.tar.gz")
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", wheel, sdist], check=True)
    check_contents(wheel, sdist)
    if args.demo:
        run_demo(wheel.resolve())


if __name__ == "__main__":
    main()
