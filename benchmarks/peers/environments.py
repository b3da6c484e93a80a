"""A virtual environment per peer, which sees the packages of this one: the same torch, and little to install."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

PINS = {"lightly-train": "0.18.0", "torchdistill": "1.1.5"}
"""What needs an environment of its own. timm, eyespot and the floor run in this one."""

ENVIRONMENT_OF = {"lightly_v3": "lightly-train", "torchdistill_box": "torchdistill"}
"""The environment of a loop; this one for the others."""

REPORTED = (
    "torch",
    "torchvision",
    "timm",
    "lightning-fabric",
    "pytorch-lightning",
    "numpy",
    "lightly-train",
    "torchdistill",
)


def setup(envs: Path) -> None:
    """Makes what is missing of the environments below `envs`."""
    for name, version in PINS.items():
        python = envs / name / "bin" / "python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(envs / name)], check=True)
            share_packages(python)
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
        subprocess.run([*pip, f"{name}=={version}"], check=True)
        print(name, json.dumps(versions(python)))


def share_packages(python: Path) -> None:
    """Puts this environment's packages behind those of another one of the same Python."""
    own = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    shared = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (Path(own) / "shared.pth").write_text("\n".join(sorted(shared)) + "\n")


def python_of(loop: str, envs: Path) -> Path:
    """The interpreter that a loop runs with.

    Raises:
        FileNotFoundError: its environment is not there.
    """
    if loop not in ENVIRONMENT_OF:
        return Path(sys.executable)
    python = envs / ENVIRONMENT_OF[loop] / "bin" / "python"
    if not python.exists():
        raise FileNotFoundError(f"{python} is missing; run: python benchmarks/peers setup --envs {envs}")
    return python


def versions(python: Path) -> dict[str, str]:
    """Versions of the packages that matter, as that interpreter finds them."""
    code = (
        "import importlib.metadata as m, json, sys\n"
        "found = {d.metadata['Name'].lower(): d.version for d in reversed(list(m.distributions()))}\n"
        f"print(json.dumps({{n: found[n] for n in {REPORTED!r} if n in found}} | {{'python': sys.version.split()[0]}}))"
    )
    text = subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True).stdout
    found: dict[str, str] = json.loads(text)
    return found


def all_versions(envs: Path) -> dict[str, dict[str, str]]:
    """`versions` of every environment used here."""
    return {"this": versions(Path(sys.executable))} | {name: versions(envs / name / "bin" / "python") for name in PINS}
