"""Fields of the scvi-tools registry that accept query data with other genes and labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scvi.data.fields import LabelsWithUnlabeledObsField, LayerField

from sccello_tools._anndata.columns import missing_column, obs_column
from sccello_tools._anndata.labels import informative_labels
from sccello_tools._logging import logger
from sccello_tools.errors import LabelError

if TYPE_CHECKING:
    from typing import Any

    from anndata import AnnData


class CountsField(LayerField):  # type: ignore[misc]
    """Counts whose genes may differ in query data: they are matched by name, not by position."""

    def transfer_field(
        self, state_registry: dict[str, Any], adata_target: AnnData, **kwargs: Any
    ) -> dict[str, Any]:
        """Register the counts of query data."""
        del state_registry, kwargs
        registered: dict[str, Any] = self.register_field(adata_target)
        return registered


class LabelsField(LabelsWithUnlabeledObsField):  # type: ignore[misc]
    """Labels; missing and uninformative ones, and those of query data that the model does not know, count as unlabeled."""

    def validate_field(self, adata: AnnData) -> None:
        """Accept query data without the column once they are registered.

        Raises
        ------
        LabelError
            If the column does not exist.
        """
        key = self._original_attr_key
        if key not in adata.obs and self.attr_key not in adata.obs:
            raise LabelError(missing_column("adata.obs", key, adata.obs.columns, "labels_key"))

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Register the labels in use, sorted, with the unlabeled category last."""
        self.validate_field(adata)
        labels = informative_labels(obs_column(adata, self._original_attr_key))
        if excluded := labels.report(self._original_attr_key):
            logger.warning("%s", excluded)
        names = set(labels.texts) - {"", str(self._unlabeled_category)}
        return self._write(adata, sorted(names))

    def transfer_field(
        self, state_registry: dict[str, Any], adata_target: AnnData, **kwargs: Any
    ) -> dict[str, Any]:
        """Register query data with the labels of the model."""
        del kwargs
        return self._write(adata_target, list(state_registry[self.CATEGORICAL_MAPPING_KEY][:-1]))

    def _write(self, adata: AnnData, names: list[str]) -> dict[str, Any]:
        code_of = {str(name): code for code, name in enumerate(names)}
        codes = np.full(adata.n_obs, len(names), dtype=np.int64)
        if self._original_attr_key in adata.obs:
            texts = informative_labels(obs_column(adata, self._original_attr_key)).texts
            codes[:] = [code_of.get(text, len(names)) for text in texts]
        adata.obs[self.attr_key] = codes
        return {
            self.CATEGORICAL_MAPPING_KEY: np.array(
                [*names, str(self._unlabeled_category)], dtype=object
            ),
            self.ORIGINAL_ATTR_KEY: self._original_attr_key,
            self.UNLABELED_CATEGORY: self._unlabeled_category,
        }
