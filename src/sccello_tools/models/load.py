"""Load models by name, from a folder or from the Hugging Face Hub."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from sccello_tools._io import sha256_of
from sccello_tools._logging import logger
from sccello_tools.errors import ArgumentError, BackendError, ModelNotFoundError, WeightsError

from .hub import HUB_SCHEME, fetch_model, hub_entry, is_available, model_folder, parse_hub_name
from .labels import make_prototypes, read_labels
from .registry import CONFIG_FILE, WEIGHTS_FILES, entry_from_folder, find_entry, read_manifest

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from sccello_tools.nn import EncoderConfig, ScCelloModel

    from .labels import Prototypes
    from .registry import ModelEntry

T = TypeVar("T")
M = TypeVar("M")


@dataclass(frozen=True, eq=False, repr=False)
class LoadedModel:
    """A network with its labels, provenance and further data of the model."""

    name: str
    network: ScCelloModel
    """On :attr:`device`, float32, in evaluation mode."""
    labels: tuple[str, ...]
    """Cell Ontology ids of the first prototypes, in their order; empty if the model has none. See :attr:`prototypes`."""
    label_names: tuple[str, ...]
    """Names of :attr:`labels`."""
    sha256: str
    """Hash of the weights file."""
    entry: ModelEntry
    """What the manifest, or ``metadata.json`` in the folder, states."""
    folder: Path
    device: torch.device
    _resources: dict[object, object] = field(default_factory=dict, init=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False)

    @property
    def config(self) -> EncoderConfig:
        """Size and constants of the network."""
        return self.network.config

    @property
    def ontology_release(self) -> str | None:
        """Cell Ontology release of the labels, if known."""
        return self.entry.ontology_release

    @property
    def address(self) -> str:
        """The argument with which :func:`load` finds this model: its name, ``"hf://owner/name@revision"`` or the path of its folder."""
        entry = self.entry
        if read_manifest().get(entry.name) == entry:
            return entry.name
        if entry.repo is not None:
            return f"{HUB_SCHEME}{entry.repo}@{entry.revision}"
        return str(self.folder.resolve())

    @property
    def n_parameters(self) -> int:
        """Number of parameters, heads included."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    @property
    def prototypes(self) -> Prototypes:
        """The learned prototypes of the known cell types, with current Cell Ontology terms.

        Raises
        ------
        WeightsError
            If the model has no labels, so that the types of its prototypes are unknown.
        """
        return self.resource(_prototypes_of)

    def resource(self, read: Callable[[LoadedModel], T], *, file: str | None = None) -> T:
        """Return ``read(self)``, which is computed once per model.

        Use it for anything read from disk or derived from the model that several calls need, such as calibration statistics.

        Parameters
        ----------
        read
            A module-level function; it identifies the value.
        file
            Name of the file in :attr:`folder` that is read: if it changes, it is read again.

        Examples
        --------
        >>> import sccello_tools as sccello
        >>> model = sccello.models.load(device="cpu")
        >>> def n_types(model):
        ...     return len(model.labels)
        >>> model.resource(n_types)
        201
        """
        path = None if file is None else self.folder / file
        stamp = None
        if path is not None and path.is_file():
            stat = path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        with self._lock:
            cached = self._resources.get(read)
            if not isinstance(cached, _Cached) or cached.stamp != stamp:
                self._resources[read] = cached = _Cached(stamp, read(self))
        return cast("T", cached.value)

    def __repr__(self) -> str:
        return (
            f"LoadedModel({self.name!r}, {self.n_parameters:,} parameters, {len(self.labels)} cell types, "
            f"device {str(self.device)!r}, sha256 {self.sha256[:12]}...)"
        )


@dataclass(frozen=True)
class _Cached:
    stamp: object
    value: object


class ModelCache(Generic[M]):
    """The last few models of one type that were loaded, so that loading one again returns the same object.

    Parameters
    ----------
    read
        Reads a model from its verified files.
    size
        Number of models to keep.
    """

    def __init__(
        self, read: Callable[[ModelEntry, Path, torch.device], M], *, size: int = 2
    ) -> None:
        self._read, self._size = read, size
        self._models: OrderedDict[tuple[object, ...], M] = OrderedDict()
        self._lock = threading.Lock()

    def load(
        self, entry: ModelEntry, device: torch.device, *, offline: bool | None, keep: bool
    ) -> M:
        """Return the model from memory if its files have not changed, else read it."""
        if keep and is_available(entry):
            with self._lock:
                if (key := _key(entry, device)) in self._models:
                    self._models.move_to_end(key)
                    return self._models[key]
        folder = fetch_model(entry, offline=offline)
        model = self._read(entry, folder, device)
        if keep:
            with self._lock:
                self._models[_key(entry, device)] = model
                while len(self._models) > self._size:
                    self._models.popitem(last=False)
        return model

    def clear(self) -> None:
        """Remove all models from memory."""
        with self._lock:
            self._models.clear()


def load(
    name_or_folder: str | Path = "sccello-small",
    *,
    device: str | torch.device = "auto",
    manifest: str | Path | None = None,
    offline: bool | None = None,
    keep: bool = True,
) -> LoadedModel:
    """Load a model by name, from a folder or from the Hugging Face Hub, downloading it if necessary.

    All files are verified before they are read, and only tensors are read from pickled weights.

    Parameters
    ----------
    name_or_folder
        Name of a model (see :func:`sccello_tools.models.list`), path of a folder with ``config.json``, ``model.safetensors`` and
        optionally ``labels.tsv`` and ``metadata.json``, or a repository on the Hugging Face Hub, ``"hf://owner/name"`` or
        ``"hf://owner/name@revision"``.
    device
        "auto" (CUDA if available, else the CPU), "cpu", "cuda", "cuda:1", "mps" and so on.
    manifest
        A manifest to read in addition to the packaged one.
    offline
        Do not download; by default ``settings.offline``, which also follows ``HF_HUB_OFFLINE``.
    keep
        Keep the model in memory, so that the next call with the same files and device returns the same object. Use false for a
        network that you train or change.

    Returns
    -------
    The network in float32 and evaluation mode, with labels, hash and provenance.

    Raises
    ------
    ModelNotFoundError
        If there is neither a model nor a folder nor a repository of that name.
    WeightsError
        If files are missing, damaged, inconsistent or cannot be downloaded, or if it is a drug response model.
    ConfigError
        If ``config.json`` describes another architecture.
    BackendError
        If the device is not available.

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
    target = resolve_device(device)
    entry = find_model(name_or_folder, manifest, offline=offline)
    if entry.kind != "encoder":
        msg = f"{entry.name!r} is a drug response model, which does not embed cells. Use tl.drug_response(adata, model={entry.name!r}) or drug.load({entry.name!r}), or pass an encoder such as 'sccello-small'."
        raise WeightsError(msg)
    model = _encoders.load(entry, target, offline=offline, keep=keep)
    model.network.eval()
    return model


def find_model(
    name_or_folder: str | Path, manifest: str | Path | None = None, *, offline: bool | None = None
) -> ModelEntry:
    """Return the entry of a model; a string is a name first, then a folder, unless it starts with ``hf://``.

    Parameters
    ----------
    name_or_folder
        As for :func:`load`.
    manifest
        A manifest to read in addition to the packaged one.
    offline
        Do not download the description of a repository on the Hugging Face Hub.

    Raises
    ------
    ModelNotFoundError
        If there is neither a model nor a folder nor a repository of that name.
    """
    if not isinstance(name_or_folder, str | os.PathLike):
        msg = f"model is a {type(name_or_folder).__name__}, must be a name, a folder or a loaded model."  # type: ignore[unreachable]
        raise ArgumentError(msg)
    if isinstance(name_or_folder, str) and name_or_folder.startswith(HUB_SCHEME):
        repo, revision = parse_hub_name(name_or_folder)
        for entry in read_manifest(manifest).values():
            if entry.repo == repo and revision in {"main", entry.revision}:
                return entry  # with what the repository itself does not state, such as the labels
        return hub_entry(repo, revision, offline=offline)
    folder = Path(name_or_folder).expanduser()
    if isinstance(name_or_folder, str):
        try:
            return find_entry(name_or_folder, manifest)
        except ModelNotFoundError:
            if not folder.is_dir():
                raise
    if not folder.is_dir():
        msg = f"There is no folder {folder}. Pass the folder that contains {CONFIG_FILE} and {WEIGHTS_FILES[0]}, or a name that models.list() shows."
        raise ModelNotFoundError(msg)
    # absolute: further files of the model are read later, possibly from another working directory
    return entry_from_folder(folder.absolute())


def _read(entry: ModelEntry, folder: Path, device: torch.device) -> LoadedModel:
    from sccello_tools.nn import load_checkpoint
    from sccello_tools.tokens import VOCABULARY_SIZE

    check_vocabulary(entry)
    labels = read_labels(entry, folder)
    weights = next(folder / name for name in WEIGHTS_FILES if (folder / name).is_file())
    network = load_checkpoint(folder)
    config = network.config
    if config.vocab_size != VOCABULARY_SIZE:
        msg = f"Model {entry.name!r} has {config.vocab_size:,} tokens, the gene vocabulary of this package {VOCABULARY_SIZE:,}: its tokens are other genes. Use the package that the model was made with."
        raise WeightsError(msg)
    if len(labels.ids) > config.n_prototypes:
        msg = f"Model {entry.name!r} has {len(labels.ids)} labels but only {config.n_prototypes} prototypes. Download or write the model again."
        raise WeightsError(msg)
    return LoadedModel(
        name=entry.name,
        network=network.to(device).eval(),
        labels=labels.ids,
        label_names=labels.names,
        sha256=sha256_of(weights),
        entry=entry,
        folder=folder,
        device=device,
    )


def check_vocabulary(entry: ModelEntry) -> None:
    """Check that a model was trained with the gene vocabulary of this package.

    Raises
    ------
    WeightsError
        If it states another one.
    """
    from sccello_tools.tokens import GeneVocabulary

    own, stated = GeneVocabulary.load(), entry.vocabulary
    if stated is not None and stated.sha256 != own.sha256:
        msg = f"Model {entry.name!r} was trained with gene vocabulary {stated.name!r} (sha256 {stated.sha256[:12]}...), this package has {own.sha256[:12]}...: its tokens are other genes. Use the version of sccello-tools that the model was made with."
        raise WeightsError(msg)


def _prototypes_of(model: LoadedModel) -> Prototypes:
    if not model.labels:
        msg = f"Model {model.name!r} has no label table, so the cell types of its prototypes are unknown. Add labels.tsv to {model.folder} (see models.save), or use tl.calibrate with labelled cells."
        raise WeightsError(msg)
    rows = model.network.learned_centroid.weight[: len(model.labels)]
    vectors = rows.detach().float().cpu().numpy()
    return make_prototypes(model.labels, vectors, model.config.tau)


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the torch device for a name; "auto" is CUDA if available, else the CPU.

    Raises
    ------
    BackendError
        If the device is not available; the message lists those that are.
    """
    import torch

    if device == "auto":
        # not mps, whose numbers have not been compared with those of the CPU
        chosen = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if chosen.type not in _logged:
            _logged.add(chosen.type)
            logger.info("models run on %s (device='auto')", chosen)
        return chosen
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        there = ["cpu", *cuda, *(["mps"] if torch.backends.mps.is_available() else [])]
        msg = f"Device {str(device)!r} is not available ({reason}). Use one of {', '.join(there)}, or 'auto'."
        raise BackendError(msg) from error
    return chosen


def _key(entry: ModelEntry, device: torch.device) -> tuple[object, ...]:
    """Identify a model by name, files and device; a changed file is another model."""
    folder = model_folder(entry).resolve()
    stats = [(file.path, (folder / file.path).stat()) for file in entry.files]
    stamps = tuple((path, s.st_mtime_ns, s.st_size, s.st_ino) for path, s in stats)
    return (entry.name, folder, stamps, tuple(f.sha256 for f in entry.files), str(device))


_encoders = ModelCache(_read)  # two: a published model takes 43 MB
_logged: set[str] = set()
