"""Upload a model folder to the Hugging Face Hub, with a model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from sccello_tools.errors import ArgumentError, DownloadError, ModelNotFoundError

from .hub import HUB_SCHEME, hub_api, hub_errors, is_offline, parse_hub_name
from .registry import (
    CARD_FILE,
    KNOWN_FILES,
    METADATA_FILE,
    WEIGHTS_FILES,
    check_contents,
    count_parameters,
    entry_from_folder,
    read_json,
)

if TYPE_CHECKING:
    from .registry import ModelEntry


def push_to_hub(
    folder: str | Path,
    repo: str,
    *,
    licence: str | None = None,
    private: bool = False,
    revision: str = "main",
    message: str = "Upload a scCello model",
) -> str:
    """Upload a model folder to a repository on the Hugging Face Hub, which is created if necessary.

    Anyone with access can then use the model with ``model="hf://owner/name"``. The upload is one commit of the model's files; other
    files in the folder, such as checkpoints of the training, are not uploaded. A model card is generated from ``metadata.json`` unless
    the folder has a ``README.md``. Log in before with ``hf auth login`` or set ``HF_TOKEN``.

    Parameters
    ----------
    folder
        A folder that :func:`save`, :func:`sccello_tools.tl.pretrain` or :func:`sccello_tools.tl.finetune` wrote.
    repo
        "owner/name".
    licence
        Licence of the weights, such as "MIT" or "CC-BY-4.0", if ``metadata.json`` does not state one.
    private
        Create a private repository.
    revision
        Branch to commit to.
    message
        Commit message.

    Returns
    -------
    URL of the commit.

    Raises
    ------
    WeightsError
        If the folder does not contain a model of this package in safetensors.
    ArgumentError
        If no licence is stated.
    DownloadError
        If the hub cannot be reached or refuses the upload, or offline mode is on.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> sccello.models.push_to_hub("my_model", "owner/my-model", licence="CC-BY-4.0")  # doctest: +SKIP
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        msg = f"There is no folder {folder}. Pass the folder of a model."
        raise ModelNotFoundError(msg)
    names = [path.name for path in folder.iterdir()]
    check_contents([name for name in names if name != WEIGHTS_FILES[1]], str(folder))
    repo = parse_hub_name(repo if repo.startswith(HUB_SCHEME) else f"{HUB_SCHEME}{repo}").repo
    entry = entry_from_folder(folder)
    if (licence or entry.licence) is None:
        msg = f"{folder / METADATA_FILE} states no licence, without which nobody may use the model. Pass licence=, such as 'MIT' or 'CC-BY-4.0'."
        raise ArgumentError(msg)
    if is_offline():
        msg = "The upload needs the network, but offline mode is on. Set settings.offline = False (environment: SCCELLO_OFFLINE, HF_HUB_OFFLINE)."
        raise DownloadError(msg)
    metadata = read_json(folder / METADATA_FILE) if METADATA_FILE in names else {}
    if licence is not None:
        metadata["licence"] = licence
        entry = entry.model_copy(update={"licence": licence})
    contents: dict[str, bytes | Path] = {
        name: folder / name for name in KNOWN_FILES if name in names and name != WEIGHTS_FILES[1]
    }
    contents[METADATA_FILE] = (json.dumps(metadata, indent=2, ensure_ascii=False) + "\n").encode()
    contents[CARD_FILE] = model_card(entry, repo=repo).encode()

    from huggingface_hub import CommitOperationAdd

    api = hub_api()
    with hub_errors(repo, revision):
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.create_commit(
            repo,
            [CommitOperationAdd(name, content) for name, content in contents.items()],
            commit_message=message,
            revision=revision,
        )
    return str(commit.commit_url)


def model_card(entry: ModelEntry, *, repo: str = "owner/name") -> str:
    """Return a model card in Markdown with the YAML header of the Hugging Face Hub.

    Parameters
    ----------
    entry
        The model; a ``README.md`` in its folder is used as the text of the card.
    repo
        Repository to name in the example.

    Returns
    -------
    Description, use, data, results, limitations and licence, as far as ``metadata.json`` states them; what it does not state is marked
    as such.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> card = sccello.models.model_card(sccello.models.info("sccello-zeroshot").entry)
    >>> print(card.splitlines()[1])
    license: mit
    """
    import yaml

    header = {
        "license": (entry.licence or "unknown").lower(),
        "library_name": "sccello-tools",
        "pipeline_tag": "feature-extraction",
        "tags": ["single-cell", "transcriptomics", "cell-ontology", "sccello", entry.kind],
    }
    front = f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n\n"
    existing = None if entry.folder is None else entry.folder / CARD_FILE
    if existing is not None and existing.is_file():
        text = existing.read_text(encoding="utf-8")
        return text if text.startswith("---\n") else front + text
    data = entry.training_data
    cells = "" if data is None or data.n_cells is None else f" {data.n_cells:,} cells."
    types = entry.label_space
    results = "\n".join(f"| {name} | {value} |" for name, value in (entry.results or {}).items())
    weights = None if entry.folder is None else entry.folder / WEIGHTS_FILES[0]
    n_parameters = entry.n_parameters
    if n_parameters is None and weights is not None and weights.is_file():
        n_parameters = count_parameters(weights)
    if entry.kind == "encoder":
        use = f'adata = sccello.datasets.pbmc3k_subsample()  # or your own: raw counts of human cells\nsccello.tl.embed(adata, model="{HUB_SCHEME}{repo}")'
    else:
        use = f'sccello.tl.drug_response(adata, groupby="cell_type", model="{HUB_SCHEME}{repo}")'
    sections = {
        entry.name: entry.description or "A scCello model (arXiv 2408.12373).",
        "Use": f"```python\nimport sccello_tools as sccello\n\n{use}\n```",
        "Model": "\n".join(
            f"- {label}: {value}"
            for label, value in {
                "type": entry.kind,
                "parameters": None if n_parameters is None else f"{n_parameters:,}",
                "hidden size": entry.hidden_size,
                "cell types": types and types.n_labels,
                "tissue": entry.tissue,
                "Cell Ontology release": entry.ontology_release,
                "gene vocabulary": entry.vocabulary and entry.vocabulary.name,
            }.items()
            if value is not None
        ),
        "Training data": "Not stated." if data is None else f"{data.description}.{cells}",
        "Results": f"| measure | value |\n| --- | --- |\n{results}" if results else "Not stated.",
        "Limitations": entry.limitations
        or "Not stated. In general: human cells only; cell types outside of the training data are recognised less reliably; confidence is calibrated only if the model has calibration statistics (tl.calibrate).",
        "Licence": " ".join(t for t in (entry.licence, entry.licence_note) if t) or "Not stated.",
        "Citation": entry.citation
        or "Yuan et al., Cell ontology guided transcriptome foundation model, NeurIPS 2024 (arXiv 2408.12373)",
    }
    body = "\n\n".join(
        f"{'#' if i == 0 else '##'} {title}\n\n{text}"
        for i, (title, text) in enumerate(sections.items())
    )
    return f"{front}{body}\n"
