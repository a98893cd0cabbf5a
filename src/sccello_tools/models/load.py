"""The one door to weights."""

from __future__ import annotations

import importlib
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from sccello_tools._logging import logger
from sccello_tools.errors import BackendError, ModelNotFoundError, WeightsError

from ._hashes import sha256_of
from ._labels import read_labels
from ._records import CONFIG_FILE, WEIGHTS_FILES
from .hub import fetch_model, is_available, model_folder
from .manifest import entry_from_folder, find_entry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Final

    import torch

    from sccello_tools.nn import EncoderConfig, ScCelloModel

    from ._records import Kind, ModelEntry

_KEPT: Final = 2  # loaded models; a published one takes 43 MB
_loaded: OrderedDict[tuple[object, ...], LoadedModel] = OrderedDict()
_lock = threading.Lock()
_said: set[str] = set()


@dataclass(frozen=True, eq=False, repr=False)
class LoadedModel:
    """A network with all that is known of it."""

    name: str
    network: ScCelloModel
    """On :attr:`device`, float32, in evaluation mode."""
    labels: tuple[str, ...]
    """Cell Ontology ids of the first prototypes, in their order; empty if the model has none."""
    label_names: tuple[str, ...]
    """Names of :attr:`labels`."""
    sha256: str
    """Hash of the weights file."""
    entry: ModelEntry
    """What the manifest, or the folder's ``metadata.json``, says of the model."""
    folder: Path
    device: torch.device

    @property
    def config(self) -> EncoderConfig:
        """Size and constants of the network."""
        return self.network.config

    @property
    def ontology_release(self) -> str | None:
        """Cell Ontology release that the labels are of, if known."""
        return self.entry.ontology_release

    @property
    def n_parameters(self) -> int:
        """Number of weights, heads included."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    def __repr__(self) -> str:
        return (
            f"LoadedModel({self.name!r}, {self.n_parameters:,} parameters, {len(self.labels)} cell types, "
            f"device {str(self.device)!r}, sha256 {self.sha256[:12]}…)"
        )


def load(
    name_or_folder: str | Path = "sccello-small",
    *,
    device: str | torch.device = "auto",
    manifest: str | Path | None = None,
    offline: bool | None = None,
    keep: bool = True,
) -> LoadedModel:
    """Load a model by name or from a folder; download it first if need be.

    A name that the manifest knows is looked up there; anything else is taken for a folder with
    ``config.json``, ``model.safetensors`` and, if there are any, ``labels.tsv`` and ``metadata.json``.
    Every file is verified before it is read, and weights are never unpickled into anything but tensors.

    Parameters
    ----------
    name_or_folder
        Name of a model (see :func:`sccello_tools.models.list`), its repository on Hugging Face,
        or path of a model folder.
    device
        "auto" (CUDA if there is one, else the CPU), "cpu", "cuda", "cuda:1", "mps" and so on.
    manifest
        A manifest of your own, read on top of the packaged one.
    offline
        If true, nothing is downloaded; ``settings.offline`` by default.
    keep
        Keep the model in memory, so that the next call with the same files and device returns this very
        one. Pass false for a network of your own to train or change.

    Returns
    -------
    The network in float32 and evaluation mode, with labels, hash and provenance. A model of kind "drug-response", such as ``"gdsc-small"``, comes as a
    :class:`sccello_tools.drug.DrugResponseModel`.

    Raises
    ------
    ModelNotFoundError
        If there is neither a model nor a folder of that name.
    WeightsError
        If files are missing, damaged, cannot be fetched, or do not fit together.
    ConfigError
        If ``config.json`` describes no model that this package has.
    BackendError
        If the device is not available here.

    Examples
    --------
    >>> import tempfile
    >>> import sccello_tools as sccello
    >>> from sccello_tools.nn import EncoderConfig, ScCelloModel, save_checkpoint
    >>> network = ScCelloModel(EncoderConfig(hidden_size=8, n_layers=1, n_heads=1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_checkpoint(network, folder)
    ...     model = sccello.models.load(folder, device="cpu")
    >>> model.config.hidden_size, model.labels
    (8, ())
    """
    target = _resolve_device(device)
    entry = find_model(name_or_folder, manifest)
    if (kept := _recall(entry, target)) is not None and keep:
        return kept
    folder = fetch_model(entry, offline=offline)
    model = _READERS[entry.kind](entry, folder, target)
    if keep:
        _remember(entry, target, model)
    return model


def find_model(name_or_folder: str | Path, manifest: str | Path | None) -> ModelEntry:
    """Take a text for a name first; a Path, or a text that is no name, for a folder."""
    folder = Path(name_or_folder).expanduser()
    looks_like_path = isinstance(name_or_folder, os.PathLike) or folder.is_dir()
    if isinstance(name_or_folder, str):
        try:
            return find_entry(name_or_folder, manifest)
        except ModelNotFoundError:
            if not looks_like_path:
                raise
    if not folder.is_dir():
        msg = f"There is no folder {folder}. Give the folder that holds {CONFIG_FILE} and {WEIGHTS_FILES[0]}, or a name that models.list() shows."
        raise ModelNotFoundError(msg)
    return entry_from_folder(folder)


def _read(entry: ModelEntry, folder: Path, device: torch.device) -> LoadedModel:
    from sccello_tools.nn import load_checkpoint
    from sccello_tools.tokens import GeneVocabulary

    weights = next((folder / name for name in WEIGHTS_FILES if (folder / name).is_file()), None)
    if weights is None:
        msg = f"No weights in {folder}; expected {' or '.join(WEIGHTS_FILES)}."
        raise WeightsError(msg)
    vocabulary = GeneVocabulary.load()
    if entry.vocabulary is not None and entry.vocabulary.sha256 != vocabulary.sha256:
        msg = f"Model {entry.name!r} was trained with gene vocabulary {entry.vocabulary.name!r} (sha256 {entry.vocabulary.sha256[:12]}…), this package holds {vocabulary.sha256[:12]}…: its tokens would name other genes. Use the version of sccello-tools that the model was made with."
        raise WeightsError(msg)
    labels = read_labels(entry, folder)
    digest = sha256_of(weights)
    network = load_checkpoint(folder)
    if len(labels.ids) > network.config.n_prototypes:
        msg = f"Model {entry.name!r} has {len(labels.ids)} labels but {network.config.n_prototypes} prototypes; expected no more labels than prototypes. Fetch or write the model again."
        raise WeightsError(msg)
    return LoadedModel(
        name=entry.name,
        network=network.to(device).eval(),
        labels=labels.ids,
        label_names=labels.names,
        sha256=digest,
        entry=entry,
        folder=folder,
        device=device,
    )


def _read_drug_response(entry: ModelEntry, folder: Path, device: torch.device) -> LoadedModel:
    # the layer that knows these files lies above this one, and is asked by name; it returns its own type
    reader = importlib.import_module("sccello_tools.drug.files")
    return cast("LoadedModel", reader.read_model(entry, folder, device))


_READERS: Final[Mapping[Kind, Callable[[ModelEntry, Path, torch.device], LoadedModel]]] = {
    "encoder": _read,
    "drug-response": _read_drug_response,
}


def _resolve_device(device: str | torch.device) -> torch.device:
    import torch

    if device == "auto":
        # Not mps: its numbers have not been compared with those of the CPU, so it is taken by name only.
        chosen = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if chosen.type not in _said:
            _said.add(chosen.type)
            logger.info("models run on %s (device='auto')", chosen)
        return chosen
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        msg = f"Device {str(device)!r} is not available here ({reason}). Expected one of {', '.join(_devices())}, or 'auto'."
        raise BackendError(msg) from error
    return chosen


def _devices() -> list[str]:
    import torch

    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return ["cpu", *cuda, *(["mps"] if torch.backends.mps.is_available() else [])]


def _key(entry: ModelEntry, device: torch.device) -> tuple[object, ...]:
    """Return what must be the same for a loaded model to be the same; a changed file changes it."""
    folder = model_folder(entry).resolve()
    stats = [(file.path, (folder / file.path).stat()) for file in entry.files]
    stamps = tuple((path, s.st_mtime_ns, s.st_size, s.st_ino) for path, s in stats)
    return (entry.name, folder, stamps, tuple(f.sha256 for f in entry.files), str(device))


def _recall(entry: ModelEntry, device: torch.device) -> LoadedModel | None:
    if not is_available(entry):
        return None
    key = _key(entry, device)
    with _lock:
        if key not in _loaded:
            return None
        _loaded.move_to_end(key)
        model = _loaded[key]
    if entry.kind == "encoder":
        model.network.eval()
    return model


def _remember(entry: ModelEntry, device: torch.device, model: LoadedModel) -> None:
    key = _key(entry, device)
    with _lock:
        _loaded[key] = model
        while len(_loaded) > _KEPT:
            _loaded.popitem(last=False)
