"""ScCello as a model of scvi-tools: set up, train, embed, predict, save and load."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from scvi import REGISTRY_KEYS, settings
from scvi.data import AnnDataManager
from scvi.data._utils import _check_if_view
from scvi.data.fields import CategoricalObsField, LabelsWithUnlabeledObsField, LayerField
from scvi.model.base import ArchesMixin, BaseModelClass

from sccello_tools._anndata.counts import CountsSource
from sccello_tools.engine import encode
from sccello_tools.models import LoadedModel, load
from sccello_tools.nn import EncoderConfig
from sccello_tools.tokens import match_gene_names
from sccello_tools.training.finetune.config import FinetuneConfig, check_mode
from sccello_tools.training.finetune.fit import head_of

from ._cells import cells_to_train, tokens_of
from ._module import ScCelloModule
from ._training import run_training

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any, Final

    from anndata import AnnData
    from numpy.typing import NDArray

    from sccello_tools.nn import Representation
    from sccello_tools.training.finetune.config import Mode

# Cells that come later may be of new batches, which the encoder does not see, and have no labels.
_NEW_CELLS: Final = {"extend_categories": True, "allow_missing_labels": True}


class ScCello(BaseModelClass):  # type: ignore[misc]
    """A pretrained scCello encoder with a classifier of your labels, used as any model of scvi-tools.

    The encoder embeds cells from the start; :meth:`train` teaches it the labels. Minified data make no sense here, as the encoder
    reads the counts, and are refused.

    Parameters
    ----------
    adata
        Cells that :meth:`setup_anndata` has registered.
    registry
        What scvi-tools saved of a setup, to make a model without cells.
    model
        Name of a pretrained model, a folder that holds one, or a loaded model.
    network_config
        Size of the encoder, in a saved model; the weights then come from the file, and ``model`` is only a name.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()[40:120].copy()
    >>> sccello.scvi.ScCello.setup_anndata(adata, labels_key="cell_type")
    >>> model = sccello.scvi.ScCello(adata)
    >>> model.get_latent_representation().shape
    (80, 128)
    """

    _module_cls = ScCelloModule
    prepare_query_anndata = staticmethod(ArchesMixin.prepare_query_anndata)

    def __init__(
        self,
        adata: AnnData | None = None,
        registry: dict[str, Any] | None = None,
        model: str | Path | LoadedModel = "sccello-small",
        network_config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(adata, registry)
        labels = self.get_state_registry(REGISTRY_KEYS.LABELS_KEY)
        self.unlabeled_category_ = labels.get("unlabeled_category")
        mapping = [str(label) for label in labels["categorical_mapping"]]
        # scvi-tools puts the unlabeled category last; without labels there is one category that says nothing
        self.labels_ = [] if self.unlabeled_category_ is None else mapping[:-1]
        if adata is None:
            genes = match_gene_names([str(name) for name in self.get_var_names()], min_matched=0)
        else:
            genes = CountsSource().gene_match(adata)
        loaded = None
        if network_config is not None:
            config = EncoderConfig.from_dict(network_config)
        else:
            loaded = model if isinstance(model, LoadedModel) else load(model, device="cpu")
            config = loaded.config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed or 0)
            self.module = self._module_cls(config, max(1, len(self.labels_)), genes)
        if loaded is not None:
            self.module.network.load_state_dict(loaded.network.state_dict())
        self.module.eval()
        name = str(model) if loaded is None else loaded.name
        self.pretrained_ = {"name": name, "sha256": "" if loaded is None else loaded.sha256}
        self._model_summary_string = f"ScCello on {name}: {config.n_layers} layers, {config.hidden_size} dimensions, {len(self.labels_)} labels"
        # a saved model is made again from its own file, wherever the pretrained one may be then
        kept = {"model": name, "network_config": config.to_dict()}
        self.init_params_ = {"kwargs": {}, "non_kwargs": kept}

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        layer: str | None = None,
        labels_key: str | None = None,
        batch_key: str | None = None,
        unlabeled_category: str = "Unknown",
        **kwargs: Any,
    ) -> None:
        """Register cells: where their counts, labels and batches are.

        Parameters
        ----------
        adata
            Annotated data with raw counts, of shape (n_obs, n_vars); ``var_names`` are Ensembl ids or symbols, or
            :func:`sccello_tools.pp.match_genes` was called.
        layer
            Layer that holds the raw counts; ``X`` if not given.
        labels_key
            Column of ``adata.obs`` with the labels to learn; without it the model embeds, and cannot be trained.
        batch_key
            Column of ``adata.obs`` with donors or batches. The encoder does not see them; training holds whole ones out to know when
            to stop.
        unlabeled_category
            Label of cells that have none.
        **kwargs
            Passed to ``AnnDataManager.register_fields``; scvi-tools uses it.
        """
        setup_method_args = cls._get_setup_method_args(**locals())
        labels = (
            CategoricalObsField(REGISTRY_KEYS.LABELS_KEY, None)
            if labels_key is None
            else LabelsWithUnlabeledObsField(
                REGISTRY_KEYS.LABELS_KEY, labels_key, unlabeled_category
            )
        )
        manager = AnnDataManager(
            fields=[
                LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=True),
                CategoricalObsField(REGISTRY_KEYS.BATCH_KEY, batch_key),
                labels,
            ],
            setup_method_args=setup_method_args,
        )
        if "source_registry" in kwargs:
            kwargs = {**_NEW_CELLS, **kwargs}
        manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)

    def train(
        self,
        max_epochs: int | None = None,
        *,
        mode: Mode = "linear",
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        validation_size: float = 0.2,
        batch_size: int = 32,
        plan_kwargs: Mapping[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Learn the labels, on scvi-tools' TrainRunner; :attr:`history` keeps the curve.

        Parameters
        ----------
        max_epochs
            Most passes over the training cells; by mode if not given.
        mode
            ``"linear"``: a layer on frozen embeddings, which are computed once. ``"lora"``: low-rank updates of the encoder on top,
            merged into its weights in the end. ``"full"``: all weights of the encoder. The last two begin with the first.
        accelerator, devices
            As everywhere in scvi-tools.
        validation_size
            Share of cells, or about that in whole batches, that is held out for early stopping.
        batch_size
            Cells of a step.
        plan_kwargs
            Other fields of :class:`sccello_tools.training.finetune.FinetuneConfig`: ``learning_rate``, ``lora_rank``, ``monitor`` and so on.
        **trainer_kwargs
            Passed to ``scvi.train.Trainer``: ``early_stopping``, ``enable_progress_bar``, ``logger`` and so on.

        Raises
        ------
        LabelError
            If there are no labels, or fewer than two.
        GroupError
            If no batch can be held out.
        ConfigError
            If ``mode`` or a field of ``plan_kwargs`` is unknown.
        """
        check_mode(mode)
        config = FinetuneConfig.from_dict(
            {
                "seed": settings.seed or 0,
                "max_epochs": max_epochs,
                "held_out": validation_size,
                "batch_cells": batch_size,
                **(plan_kwargs or {}),
            }
        )
        cells = cells_to_train(self, config)
        options = {"accelerator": accelerator, "devices": devices, **trainer_kwargs}
        run_training(self, cells, mode=mode, config=config, options=options)

    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        *,
        representation: Representation = "cls",
        batch_size: int | None = None,
    ) -> NDArray[np.float32]:
        """Embed cells; before training these are the rows of the pretrained model.

        Parameters
        ----------
        adata
            Cells to embed, those of the model if not given. Genes are matched by name, so their order and number may differ.
        indices
            Rows to embed.
        representation
            ``"cls"``: last hidden state at ``<cls>``. ``"cell"``: unit vector of the cell head.
        batch_size
            Rows of counts held in memory at a time. The result does not depend on it.

        Returns
        -------
        Array of shape (n_cells, d), float32; NaN for cells without any gene of the vocabulary.
        """
        adata = self._validate_anndata(adata)
        tokens = tokens_of(self, adata, indices, batch_size)
        return encode(self.module.network, tokens, representation=representation)

    def predict(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        *,
        soft: bool = False,
        batch_size: int | None = None,
    ) -> NDArray[np.object_] | pd.DataFrame:
        """Label cells.

        Parameters
        ----------
        adata, indices, batch_size
            As :meth:`get_latent_representation`.
        soft
            Return the probabilities of all labels.

        Returns
        -------
        (n_cells,) labels, the unlabeled category for cells without any gene of the vocabulary; with ``soft`` a DataFrame of shape
        (n_cells, n_labels), whose rows are the cells' names.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        """
        self._check_if_trained(warn=False)
        adata = self._validate_anndata(adata)
        hidden = self.get_latent_representation(adata, indices, batch_size=batch_size)
        head = dataclasses.replace(
            head_of(self.module.classifier), temperature=float(self.module.temperature)
        )
        chances = head.probabilities(hidden)
        if soft:
            cells = adata.obs_names if indices is None else adata.obs_names[np.asarray(indices)]
            return pd.DataFrame(chances, index=cells, columns=self.labels_)
        usable = np.isfinite(chances).all(axis=1)
        best = np.where(usable, np.nan_to_num(chances).argmax(axis=1), -1)
        return np.array([*self.labels_, self.unlabeled_category_], dtype=object)[best]

    def _validate_anndata(
        self,
        adata: AnnData | None = None,
        copy_if_view: bool = True,  # noqa: FBT001, FBT002 - scvi-tools' signature
    ) -> AnnData:
        """Register new cells as scvi-tools does, but let them have batches of their own, and no labels."""
        if adata is not None and self.adata_manager is not None:
            _check_if_view(adata, copy_if_view=copy_if_view)
            if self.get_anndata_manager(adata) is None:
                manager = self.adata_manager.transfer_fields(adata, **_NEW_CELLS)
                self._register_manager_for_instance(manager)
        validated: AnnData = super()._validate_anndata(adata, copy_if_view)
        return validated
