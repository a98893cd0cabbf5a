"""Drug response models on disk: ``model.safetensors``, ``config.json`` and ``metadata.json``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from sccello_tools._io import read_tensors, sha256_of, write_json, write_tensors
from sccello_tools.errors import ConfigError, OutputExistsError, WeightsError
from sccello_tools.models.load import ModelCache, check_vocabulary, find_model, resolve_device
from sccello_tools.models.registry import CONFIG_FILE, METADATA_FILE, WEIGHTS_FILES
from sccello_tools.tokens import GeneVocabulary

from .config import DrugResponseConfig
from .ensemble import Ensemble
from .model import DrugResponseModel
from .network import DrugResponseNetwork, DrugVectors
from .profiles import LineFeatures

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

    from sccello_tools.models.registry import ModelEntry

KIND: Final = "drug-response"
_FORMAT: Final = 1
_HEADER: Final = "sccello_drug_response"
_LINE_ARRAYS: Final = ("mean", "components", "embedding_mean", "embedding_scale")


def save_model(
    model: DrugResponseModel,
    folder: str | Path,
    *,
    metadata: Mapping[str, Any] | None = None,
) -> DrugResponseModel:
    """Write a model folder that :func:`sccello_tools.drug.load` reads.

    Principal axes and vectors of known drugs are stored in half precision, which changes predictions by less than 0.005.

    Parameters
    ----------
    model
        The model.
    folder
        Output folder; it must be empty or not exist.
    metadata
        Further entries of ``metadata.json``: description, licence, citation, paper, training_data.

    Returns
    -------
    The model with its hash and folder.

    Raises
    ------
    OutputExistsError
        If the folder is not empty.
    """
    folder = Path(folder)
    check_output_folder(folder)
    ensemble = model.ensemble.with_vectors()
    arrays = {f"line.{name}": getattr(ensemble.lines, name) for name in _LINE_ARRAYS}
    arrays["line.components"] = arrays["line.components"].astype(np.float16)
    vocabulary = GeneVocabulary.load()
    tokens = [vocabulary.token_of[gene] for gene in ensemble.lines.genes]
    arrays["line.tokens"] = np.array(tokens, dtype=np.int32)
    arrays["losses"] = ensemble.losses.astype(np.float32)
    tensors = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}
    for i, (network, vectors) in enumerate(zip(ensemble.networks, ensemble.known_vectors)):
        tensors |= {f"network.{i}.{k}": v.contiguous() for k, v in network.state_dict().items()}
        tensors[f"known.{i}.offsets"] = vectors.offsets.clone()
        tensors[f"known.{i}.vectors"] = vectors.vectors.half()
    config = ensemble.config.to_dict()
    encoder = {"encoder": model.encoder_name, "encoder_sha256": model.encoder_sha256}
    header = {
        "format": _FORMAT,
        "config": config,
        "drugs": ensemble.drugs,
        "smiles": ensemble.smiles,
        "cell_lines": ensemble.cell_lines,
        "centre": ensemble.mean,
        "spread": ensemble.std,
        **encoder,
        "split": model.split,
        "scores": dict(model.scores),
    }
    described = {
        "name": model.name,
        "kind": KIND,
        "description": f"Response of {len(model.cell_lines)} cancer cell lines to {len(model.drugs)} drugs, ln IC50 (µM).",
        "vocabulary": {"name": "sccello-25424", "sha256": vocabulary.sha256},
        **(metadata or {}),
    }
    # scalars only, as in the config.json of other models
    plain = config | {"cell_features": ",".join(ensemble.config.cell_features)} | encoder
    write_json(folder / CONFIG_FILE, plain)
    write_json(folder / METADATA_FILE, described)
    weights = folder / WEIGHTS_FILES[0]
    write_tensors(weights, tensors, header, header=_HEADER)
    return replace(model, sha256=sha256_of(weights), folder=folder)


def check_output_folder(folder: Path) -> None:
    """Raise an OutputExistsError if a folder is not empty, or a file."""
    if folder.is_file():
        msg = f"{folder} is a file. Pass a new folder for the drug response model."
        raise OutputExistsError(msg)
    if folder.exists() and any(folder.iterdir()):
        msg = f"{folder} is not empty. Pass a new folder for the drug response model."
        raise OutputExistsError(msg)


def load(
    name_or_folder: str | Path = "gdsc-small",
    *,
    device: str | torch.device = "auto",
    manifest: str | Path | None = None,
    offline: bool | None = None,
    keep: bool = True,
) -> DrugResponseModel:
    """Load a drug response model by name, from a folder or from the Hugging Face Hub.

    Parameters
    ----------
    name_or_folder
        Name of a model (see :func:`sccello_tools.models.list`), a folder that :func:`sccello_tools.tl.train_drug_response` wrote, or a
        repository on the Hugging Face Hub, ``"hf://owner/name@revision"``.
    device
        Device of the encoder, such as ``"cpu"`` or ``"cuda:1"``; ``"auto"`` uses a GPU if available. The networks run on the CPU.
    manifest
        A manifest to read in addition to the packaged one.
    offline
        Do not download; by default ``settings.offline``, which also follows ``HF_HUB_OFFLINE``.
    keep
        Keep the model in memory, so that the next call returns the same object.

    Returns
    -------
    The model.

    Raises
    ------
    ModelNotFoundError
        If there is neither a model nor a folder nor a repository of that name.
    WeightsError
        If files are missing or damaged, or it is not a drug response model.
    BackendError
        If the device is not available.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> len(sccello.drug.load("gdsc-small").drugs)
    228
    """
    entry = find_model(name_or_folder, manifest, offline=offline)
    if entry.kind != KIND:
        msg = f"{entry.name!r} is not a drug response model. Pass 'gdsc-small', or a model that tl.train_drug_response returned or wrote."
        raise WeightsError(msg)
    return _models.load(entry, resolve_device(device), offline=offline, keep=keep)


def _read(entry: ModelEntry, folder: Path, device: torch.device) -> DrugResponseModel:
    path = folder / WEIGHTS_FILES[0]
    check_vocabulary(entry)
    try:
        tensors, header = read_tensors(path, header=_HEADER)
        _check_format(path, header)
        ensemble = _ensemble(header, tensors)
    except (KeyError, ValueError, RuntimeError) as error:
        if isinstance(error, WeightsError) and not isinstance(error, ConfigError):
            raise
        msg = f"{path} cannot be read as a drug response model ({error}). Download it again, or train it with tl.train_drug_response(data, out=...)."
        raise WeightsError(msg) from error
    return DrugResponseModel(
        name=entry.name,
        ensemble=ensemble,
        encoder_name=str(header["encoder"]),
        encoder_sha256=str(header["encoder_sha256"]),
        split=str(header["split"]),
        scores={str(k): float(v) for k, v in header["scores"].items()},
        sha256=sha256_of(path),
        folder=folder,
        device=str(device),
    )


def _check_format(path: Path, header: Mapping[str, Any]) -> None:
    if header["format"] != _FORMAT:
        msg = f"{path} has format {header['format']}, this package reads {_FORMAT}. Train the model again with tl.train_drug_response."
        raise WeightsError(msg)


def _ensemble(header: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> Ensemble:
    config = DrugResponseConfig.from_dict(header["config"])
    gene_of = GeneVocabulary.load().gene_of
    arrays = {name: tensors[f"line.{name}"].float().numpy() for name in _LINE_ARRAYS}
    genes = tuple(gene_of[int(token)] for token in tensors["line.tokens"])
    lines = LineFeatures(genes=genes, **arrays)
    networks, vectors = [], []
    for i in range(config.n_members):
        network = DrugResponseNetwork(
            config, n_features=lines.n_features, n_known=len(header["drugs"])
        )
        prefix = f"network.{i}."
        state = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        network.load_state_dict(state)
        networks.append(network.eval())
        vectors.append(
            DrugVectors(tensors[f"known.{i}.offsets"], tensors[f"known.{i}.vectors"].float())
        )
    return Ensemble(
        config=config,
        networks=tuple(networks),
        lines=lines,
        drugs=tuple(header["drugs"]),
        smiles=tuple(header["smiles"]),
        cell_lines=tuple(header["cell_lines"]),
        mean=float(header["centre"]),
        std=float(header["spread"]),
        losses=tensors["losses"].numpy(),
        known_vectors=tuple(vectors),
    )


_models = ModelCache(_read)
