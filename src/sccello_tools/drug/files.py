"""Drug response models on disk: ``model.safetensors``, ``config.json`` and ``metadata.json``, as every model folder."""

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
from .drugs import n_drug_features
from .ensemble import Ensemble
from .lines import LineFeatures
from .model import DrugResponseModel
from .network import DrugResponseNetwork, DrugVectors

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
    """Write a model folder that :func:`sccello_tools.models.load` reads.

    Principal axes and the known drugs' vectors are kept in half precision, which moves predictions by less than a thousandth.

    Parameters
    ----------
    model
        What to write.
    folder
        Made if it is not there; it must be empty.
    metadata
        More for ``metadata.json``: description, licence, citation, paper, training_data.

    Returns
    -------
    The model as it was written: its hash and folder filled in.

    Raises
    ------
    OutputExistsError
        If the folder holds something.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        msg = f"{folder} is not empty. Name a new folder for the drug response model."
        raise OutputExistsError(msg)
    ensemble = model.ensemble.with_vectors()
    arrays = {f"line.{name}": getattr(ensemble.lines, name) for name in _LINE_ARRAYS}
    arrays["line.components"] = arrays["line.components"].astype(np.float16)
    token_of = GeneVocabulary.load().token_of
    arrays["line.tokens"] = np.array([token_of[g] for g in ensemble.lines.genes], dtype=np.int32)
    arrays["losses"] = ensemble.losses.astype(np.float32)
    tensors = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}
    for i, (network, vectors) in enumerate(zip(ensemble.networks, ensemble.known_vectors)):
        tensors |= {f"network.{i}.{k}": v.contiguous() for k, v in network.state_dict().items()}
        tensors[f"known.{i}.offsets"] = vectors.offsets.clone()
        tensors[f"known.{i}.vectors"] = vectors.vectors.half()
    facts = {
        "format": _FORMAT,
        "config": ensemble.config.to_dict(),
        "drugs": ensemble.drugs,
        "smiles": ensemble.smiles,
        "cell_lines": ensemble.cell_lines,
        "centre": ensemble.centre,
        "spread": ensemble.spread,
        "encoder": model.encoder_name,
        "encoder_sha256": model.encoder_sha256,
        "split": model.split,
        "scores": dict(model.scores),
    }
    described = {
        "name": model.name,
        "kind": KIND,
        "description": f"Response of {len(model.cell_lines)} cancer cell lines to {len(model.drugs)} drugs, ln IC50 (µM).",
        "vocabulary": {"name": "sccello-25424", "sha256": GeneVocabulary.load().sha256},
        **(metadata or {}),
    }
    plain = {k: v for k, v in ensemble.config.to_dict().items() if k != "cell_features"}
    plain["cell_features"] = ",".join(ensemble.config.cell_features)
    plain |= {"encoder": model.encoder_name, "encoder_sha256": model.encoder_sha256}
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / WEIGHTS_FILES[0]
    write_json(folder / CONFIG_FILE, plain)
    write_json(folder / METADATA_FILE, described)
    write_tensors(weights, tensors, facts, header=_HEADER)
    return replace(model, sha256=sha256_of(weights), folder=folder)


def load(
    name_or_folder: str | Path = "gdsc-small",
    *,
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
    manifest
        A manifest to read on top of the packaged one.
    offline
        Do not download; by default ``settings.offline``, which also follows ``HF_HUB_OFFLINE``.
    keep
        Keep the model in memory, so that the next call returns the same object.

    Returns
    -------
    The model, on the CPU.

    Raises
    ------
    ModelNotFoundError
        If there is neither a model nor a folder nor a repository of that name.
    WeightsError
        If files are missing or damaged, or it is not a drug response model.

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
    return _models.load(entry, resolve_device("cpu"), offline=offline, keep=keep)


def _read(entry: ModelEntry, folder: Path, _: torch.device) -> DrugResponseModel:
    path = folder / WEIGHTS_FILES[0]
    check_vocabulary(entry)
    try:
        facts, tensors = _read_file(path)
        ensemble = _ensemble(facts, tensors)
    except (KeyError, ValueError, RuntimeError) as error:
        if isinstance(error, WeightsError) and not isinstance(error, ConfigError):
            raise
        msg = f"{path} cannot be read as a drug response model ({error}). Download it again, or create it with tl.train_drug_response(data, out=...)."
        raise WeightsError(msg) from error
    return DrugResponseModel(
        name=entry.name,
        ensemble=ensemble,
        encoder_name=str(facts["encoder"]),
        encoder_sha256=str(facts["encoder_sha256"]),
        split=str(facts["split"]),
        scores={str(k): float(v) for k, v in facts["scores"].items()},
        sha256=sha256_of(path),
        folder=folder,
    )


def _read_file(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    tensors, facts = read_tensors(path, header=_HEADER)
    if facts["format"] != _FORMAT:
        msg = f"{path} has format {facts['format']}, this package reads {_FORMAT}. Re-create it with tl.train_drug_response."
        raise WeightsError(msg)
    return facts, tensors


def _ensemble(facts: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> Ensemble:
    config = DrugResponseConfig.from_dict(facts["config"])
    gene_of = GeneVocabulary.load().gene_of
    arrays = {name: tensors[f"line.{name}"].float().numpy() for name in _LINE_ARRAYS}
    genes = tuple(gene_of[int(token)] for token in tensors["line.tokens"])
    lines = LineFeatures(genes=genes, **arrays)
    networks, vectors = [], []
    for i in range(config.n_members):
        network = DrugResponseNetwork(
            config,
            n_features=lines.n_features,
            n_drug_features=n_drug_features(config.drug_encoder),
            n_known=len(facts["drugs"]),
        )
        prefix = f"network.{i}."
        own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        network.load_state_dict(own)
        networks.append(network.eval())
        vectors.append(
            DrugVectors(tensors[f"known.{i}.offsets"], tensors[f"known.{i}.vectors"].float())
        )
    return Ensemble(
        config=config,
        networks=tuple(networks),
        lines=lines,
        drugs=tuple(facts["drugs"]),
        smiles=tuple(facts["smiles"]),
        cell_lines=tuple(facts["cell_lines"]),
        centre=float(facts["centre"]),
        spread=float(facts["spread"]),
        losses=tensors["losses"].numpy(),
        known_vectors=tuple(vectors),
    )


_models = ModelCache(_read)
