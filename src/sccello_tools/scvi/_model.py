"""ScCello as an scvi-tools model: set up, train, embed, predict, save and load."""

from __future__ import annotations

import dataclasses
import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from scvi import REGISTRY_KEYS, settings
from scvi.data import AnnDataManager
from scvi.data.fields import CategoricalObsField
from scvi.model.base import ArchesMixin, BaseModelClass

from sccello_tools._anndata.counts import RAW, CountsSource
from sccello_tools.engine import encode
from sccello_tools.errors import ArgumentError, ConfigError
from sccello_tools.models import LoadedModel, load
from sccello_tools.nn import EncoderConfig
from sccello_tools.tokens import match_gene_names
from sccello_tools.training.finetune.config import FinetuneConfig, check_mode
from sccello_tools.training.finetune.fit import head_of

from ._fields import CountsField, LabelsField
from ._module import ScCelloModule
from ._training import cells_to_train, run_training, tokens_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any, Final

    from anndata import AnnData
    from numpy.typing import NDArray

    from sccello_tools.nn import Representation
    from sccello_tools.tokens.counts import CountsPolicy
    from sccello_tools.training.finetune.config import Mode

_COUNTS_ARGUMENTS: Final = ("layer", "gene_ids", "counts", "min_matched")


class ScCello(BaseModelClass):  # type: ignore[misc]
    """A pretrained scCello encoder with a classifier of the user's labels, with the API of an scvi-tools model.

    The encoder embeds cells without training; :meth:`train` fits the classifier. Query data need no setup: genes are matched by name, and
    labels and batches are not used for embedding and prediction. Minified data are not supported, because the encoder reads counts.

    Parameters
    ----------
    adata
        Cells that :meth:`setup_anndata` has registered.
    registry
        Setup saved by scvi-tools, to create a model without cells.
    model
        Name of a pretrained model, a model folder, or a loaded model.
    network_config
        Size of the encoder in a saved model, whose weights are in its own file; ``model`` is then only a name.

    Examples
    --------
    >>> import sccello_tools as sccello
    >>> adata = sccello.datasets.pancreas_tritschler()[40:120].copy()
    >>> sccello.scvi.ScCello.setup_anndata(adata, labels_key="cell_type")
    >>> model = sccello.scvi.ScCello(adata)
    >>> model.get_latent_representation().shape
    (80, 256)
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
        # the unlabeled category is last; without labels_key there is a single meaningless category
        self.labels_ = [] if self.unlabeled_category_ is None else mapping[:-1]
        if adata is None:
            genes = match_gene_names([str(name) for name in self.get_var_names()], min_matched=0)
        else:
            genes = self.counts_source.gene_match(adata)
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
        # a saved model is restored from its own file and does not need the pretrained one
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
        gene_ids: str | None = None,
        counts: CountsPolicy = "check",
        min_matched: int = 500,
        **kwargs: Any,
    ) -> None:
        """Register cells: the location of their counts, labels and batches.

        Parameters
        ----------
        adata
            Annotated data with raw counts, of shape (n_obs, n_vars); ``var_names`` are Ensembl ids or symbols, or
            :func:`sccello_tools.pp.match_genes` was called.
        layer
            Layer with raw counts; ``X`` by default.
        labels_key
            Column of ``adata.obs`` with the labels to predict; without it the model can embed, but not be trained. Cells with a missing
            or uninformative label ("unknown", "doublet") are treated as unlabeled.
        batch_key
            Column of ``adata.obs`` with donors or batches. They are not an input of the encoder; training holds out whole batches for
            early stopping.
        unlabeled_category
            Label of unlabeled cells.
        gene_ids
            Column of ``adata.var`` with gene names; ``var_names`` by default.
        counts
            ``"check"`` accepts integer counts only, ``"trust"`` also fractions.
        min_matched
            Minimum number of genes that must match the vocabulary.
        **kwargs
            Passed to ``AnnDataManager.register_fields`` by scvi-tools.

        Raises
        ------
        LabelError
            If ``labels_key`` is not a column.
        ArgumentError
            If ``layer`` is ``"raw.X"``, which scvi-tools cannot register.
        """
        if layer == RAW:
            msg = "scvi-tools cannot register adata.raw. Copy its counts to a layer first: adata.layers['counts'] = adata.raw[:, adata.var_names].X"
            raise ArgumentError(msg)
        setup_method_args = cls._get_setup_method_args(**locals())
        labels = (
            CategoricalObsField(REGISTRY_KEYS.LABELS_KEY, None)
            if labels_key is None
            else LabelsField(REGISTRY_KEYS.LABELS_KEY, labels_key, unlabeled_category)
        )
        manager = AnnDataManager(
            fields=[
                CountsField(REGISTRY_KEYS.X_KEY, layer, is_count_data=True),
                CategoricalObsField(REGISTRY_KEYS.BATCH_KEY, batch_key),
                labels,
            ],
            setup_method_args=setup_method_args,
        )
        if "source_registry" in kwargs:
            kwargs = {"extend_categories": True, **kwargs}
        manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)

    def train(
        self,
        max_epochs: int | None = None,
        *,
        mode: Mode = "linear",
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        validation: float = 0.2,
        batch_size: int = 32,
        plan_kwargs: Mapping[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train the classifier with scvi-tools' TrainRunner; :attr:`history` contains the curve.

        Parameters
        ----------
        max_epochs
            Maximum number of epochs; the default depends on the mode.
        mode
            ``"linear"``: a linear layer on frozen embeddings, which are computed once. ``"lora"``: additionally low-rank updates of the
            encoder, which are merged into its weights. ``"full"``: additionally all weights of the encoder.
        accelerator, devices
            See ``scvi.train.Trainer``.
        validation
            Fraction of cells held out for early stopping and calibration; approximate if whole batches are held out.
        batch_size
            Cells per step.
        plan_kwargs
            Other fields of :class:`sccello_tools.training.finetune.FinetuneConfig`: ``learning_rate``, ``lora_rank``, ``monitor`` and so on.
        **trainer_kwargs
            Passed to ``scvi.train.Trainer``: ``early_stopping``, ``check_val_every_n_epoch``, ``enable_progress_bar``, ``logger``, ...
            With ``early_stopping=False`` all epochs are run and the last weights are kept.

        Raises
        ------
        LabelError
            If there are fewer than two labels.
        GroupError
            If no batch can be held out.
        ConfigError
            If ``mode``, ``plan_kwargs`` or the type of an option is invalid, or the model was loaded without cells.
        KeyboardInterrupt
            On Ctrl-C.
        """
        check_mode(mode)
        if sizes := sorted({"train_size", "validation_size"} & set(trainer_kwargs)):
            msg = f"{' and '.join(sizes)} cannot be set; pass the fraction of held-out cells as validation="
            raise ConfigError(msg)
        config = FinetuneConfig.from_dict(
            {
                "seed": settings.seed or 0,
                "max_epochs": max_epochs,
                "validation": validation,
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
        """Embed cells; before training with the pretrained encoder.

        Parameters
        ----------
        adata
            Cells to embed; by default those of the model. They need no setup. Genes are matched by name, so their order and number may
            differ; the counts are read from the layer of the model's setup.
        indices
            Rows to embed.
        representation
            ``"cls"``: last hidden state at ``<cls>``. ``"cell"``: unit vector of the cell head.
        batch_size
            Rows of counts in memory at a time; does not affect the result.

        Returns
        -------
        Array of shape (n_cells, d), float32; NaN for cells without counts in any gene of the vocabulary.

        Raises
        ------
        ConfigError
            If the model was loaded without cells and none are passed.
        GeneMatchError, NotCountsError
            If the matrix does not hold raw counts of human genes.
        """
        tokens = tokens_of(self, self._cells(adata), indices, batch_size)
        return encode(self.module.network, tokens, representation=representation)

    def predict(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        *,
        soft: bool = False,
        batch_size: int | None = None,
    ) -> NDArray[np.object_] | pd.DataFrame:
        """Predict labels.

        Parameters
        ----------
        adata, indices, batch_size
            See :meth:`get_latent_representation`.
        soft
            Return the probabilities of all labels.

        Returns
        -------
        Array of shape (n_cells,) with labels, the unlabeled category for cells without counts in any gene of the vocabulary; with
        ``soft`` a DataFrame of probabilities of shape (n_cells, n_labels).

        Raises
        ------
        RuntimeError
            If the model is not trained.
        """
        self._check_if_trained(warn=False)
        adata = self._cells(adata)
        hidden = self.get_latent_representation(adata, indices, batch_size=batch_size)
        head = dataclasses.replace(
            head_of(self.module.classifier), temperature=float(self.module.temperature)
        )
        probs = head.probabilities(hidden)
        if soft:
            cells = adata.obs_names if indices is None else adata.obs_names[np.asarray(indices)]
            return pd.DataFrame(probs, index=cells, columns=self.labels_)
        usable = np.isfinite(probs).all(axis=1)
        best = np.where(usable, np.nan_to_num(probs).argmax(axis=1), -1)
        return np.array([*self.labels_, self.unlabeled_category_], dtype=object)[best]

    @property
    def counts_source(self) -> CountsSource:
        """Location of the raw counts, from the setup."""
        return CountsSource(**{name: self.get_setup_arg(name) for name in _COUNTS_ARGUMENTS})

    @classmethod
    def load(cls, *args: Any, **kwargs: Any) -> ScCello:
        """Load a saved model, as any scvi-tools model; genes, labels and batches of ``adata`` may differ from those of the training."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`var_names` for the loaded `model` does not match")
            model: ScCello = super().load(*args, **kwargs)
        return model

    def _cells(self, adata: AnnData | None) -> AnnData:
        found = self.adata if adata is None else adata
        if found is None:
            msg = "The model was loaded without cells. Pass them as adata=."
            raise ConfigError(msg)
        return found
