"""Unsafe calls are absent from the sources, and manifests and weights cannot cause unsafe actions."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

import sccello_tools
from sccello_tools import models
from sccello_tools.errors import ManifestError, WeightsError
from sccello_tools.models.registry import read_manifest

SOURCE = Path(sccello_tools.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "tarfile"}  # fmt: skip
UNSAFE_NAMES = {"eval", "exec", "compile", "__import__"}


def dotted(node: ast.expr) -> str:
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id if isinstance(node, ast.Name) else "?", *reversed(parts)])


def faults(source: str) -> list[str]:
    """Return the unsafe imports and calls of a file."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            if names != ["UnpicklingError", "pickle"]:  # an error, which loads nothing
                found += [f"imports {n}" for n in names if n.split(".")[0] in UNSAFE_MODULES]
        if not isinstance(node, ast.Call):
            continue
        name, keywords = dotted(node.func), {k.arg: k.value for k in node.keywords}
        true = {arg for arg, value in keywords.items() if getattr(value, "value", None) is True}
        if name in UNSAFE_NAMES:
            found.append(f"calls {name}")
        if name == "torch.load" and "weights_only" not in true:
            found.append("torch.load without weights_only=True")
        if name in {"yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"}:
            found.append(f"{name}: use yaml.safe_load")
        if name in {"np.load", "numpy.load"} and "allow_pickle" in true:
            found.append("np.load with allow_pickle")
        if "shell" in true or name in {"os.system", "os.popen"}:
            found.append(f"{name} by a shell")
        if name.startswith("requests.") and "verify" in keywords:
            found.append("requests without a check of certificates")
        if name in {"pd.read_pickle", "read_pickle"} or name.endswith(
            (".unpack_archive", ".extractall")
        ):
            found.append(name)
    return found


def test_every_source_is_safe() -> None:
    assert len(FILES) > 100
    found = {str(path.relative_to(SOURCE)): faults(path.read_text("utf-8")) for path in FILES}
    assert {name: faults for name, faults in found.items() if faults} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
        "yaml.load(f)",
        "subprocess.run(c, shell=True)",
        "os.system('x')",
        "eval('1')",
        "np.load(p, allow_pickle=True)",
        "requests.get(u, verify=False)",
        "shutil.unpack_archive(p)",
        "zipfile.ZipFile(p).extractall(q)",
    ],
)
def test_the_reader_of_sources_finds(source: str) -> None:
    assert faults(source)


@pytest.mark.parametrize(
    "source", ["torch.load(p, weights_only=True)", "yaml.safe_load(f)", "np.load(p)"]
)
def test_the_reader_of_sources_lets_pass(source: str) -> None:
    assert faults(source) == []


def test_weights_that_are_pickled_code_are_not_run(tiny_model_folder: Path, tmp_path: Path) -> None:
    import pickle
    import shutil

    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "was here",)

    folder = tmp_path / "evil"
    shutil.copytree(tiny_model_folder, folder)
    weights = next(folder.glob("*.safetensors"))
    weights.unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(WeightsError):
        models.load(folder, device="cpu")
    assert not (tmp_path / "was here").exists()


def a_manifest(place: Path, **file: object) -> Path:
    """A manifest of one model with one file, as somebody might send it."""
    entries = json.loads((SOURCE / "resources" / "weights_manifest.json").read_text("utf-8"))
    text = json.dumps(entries)
    entry = next(e for e in json.loads(text)["models"] if e["source"] == "huggingface")
    given = {"path": "model.safetensors", "sha256": "0" * 64, "bytes": 10, "url": "https://example.org/x"}  # fmt: skip
    entry |= {"name": "sent", "source": "url", "files": [given | file]}
    for key in ("repo", "revision"):
        entry.pop(key, None)
    place.write_text(
        json.dumps({**{k: v for k, v in entries.items() if k != "models"}, "models": [entry]})
    )
    return place


@pytest.mark.parametrize(
    "file",
    [
        {"path": "../../.ssh/authorized_keys"},
        {"path": "/etc/passwd"},
        {"path": "a/../../b"},
        {"path": ".bashrc"},
        {"path": "C:\\windows\\x"},
        {"path": "a\u0000b"},
        {"bytes": 10**15},
        {"bytes": -1},
        {"bytes": True},
        {"url": "http://example.org/x"},
        {"url": "file:///etc/passwd"},
        {"url": "ftp://example.org/x"},
        {"url": "javascript:alert(1)"},
        {"sha256": "0" * 63},
    ],
)
def test_a_manifest_cannot_reach_out_of_the_cache(tmp_path: Path, file: dict) -> None:
    with pytest.raises(ManifestError):
        read_manifest(a_manifest(tmp_path / "manifest.json", **file))
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
