"""Reviewed labels of the other profile sources: (source, author label) -> (Cell Ontology name or None, reason)."""

from __future__ import annotations

# One rule per line.
# fmt: off

AS_NAMED = "as named"

# label -> name, for every tissue of tissue_profiles.h5ad unless PROFILE_EXCEPTIONS has (source, label)
TISSUE_PROFILES: dict[str, str | None] = {
    "Astrocyte": "astrocyte", "Astrocytes": "astrocyte", "Endothelial": "endothelial cell", "endothelia": "endothelial cell",
    "L2.3.IT": "L2/3 intratelencephalic projecting glutamatergic neuron", "L4.IT": "glutamatergic neuron", "L5.ET": "glutamatergic neuron",
    "L5.6.IT.Car3": "glutamatergic neuron", "L5.6.NP": "glutamatergic neuron",
    "L6.CT": "glutamatergic neuron", "L6b": "glutamatergic neuron",
    "LAMP5": "lamp5 GABAergic interneuron", "PAX6": "GABAergic interneuron", "PVALB": "pvalb GABAergic interneuron", "SST": "sst GABAergic interneuron",
    "VIP": "VIP GABAergic interneuron", "VLMC": "vascular leptomeningeal cell", "Microglia": "microglial cell", "microglial.cell": "microglial cell",
    "Oligodendrocyte": "oligodendrocyte", "Oligodendrocytes": "oligodendrocyte", "OPC": "oligodendrocyte precursor cell",
    "Pericyte": "pericyte", "Pericytes": "pericyte", "pericyte": "pericyte", "Pericytes.1": "pericyte", "Pericytes.2": "pericyte",
    "Neoplastic.Type.1": "malignant cell", "Neoplastic.Type.2": "malignant cell", "Neoplastic.Type.3": "malignant cell",
    "Myeloid.Type.1": "myeloid leukocyte", "Myeloid.Type.2": "myeloid leukocyte", "Vascular.Type.1": None, "Vascular.Type.2": None, "Vascular.Type.3": None,
    "Neuron": "neuron",
    # colon
    "stromal.cell.type.1": "fibroblast", "stromal.cell.type.2a": "fibroblast", "stromal.cell.type.2b": "fibroblast", "stromal.cell.type.3": "fibroblast",
    "stromal.cell.type.4": "fibroblast", "glial.cell": "enteroglial cell", "plasma.cell": "plasma cell", "endothelial.cell.type.1": "endothelial cell",
    "endothelial.cell.type.2": "endothelial cell", "smooth.muscle.cell": "smooth muscle cell",
    # decidua, placenta
    "conventional.dendritic.cell": "conventional dendritic cell", "decidual.macrophage.type.1": "macrophage", "decidual.macrophage.type.2": "macrophage",
    "decidual.macrophage": "macrophage", "proliferating.decidual.natural.killer.cell": "decidual natural killer cell, human",
    "decidual.natural.killer.cell.type.1": "decidual natural killer cell, human", "decidual.natural.killer.cell.type.2": "decidual natural killer cell, human",
    "decidual.natural.killer.cell.type.3": "decidual natural killer cell, human", "decidual.perivascular.cell.type.1": "pericyte",
    "decidual.perivascular.cell.type.2": "pericyte", "decidual.stromal.cell.type.1": "decidual cell", "decidual.stromal.cell.type.2": "decidual cell",
    "decidual.stromal.cell.type.3": "decidual cell", "maternal.endothelial.cell": "endothelial cell",
    "lymphatic.endothelial.cell": "endothelial cell of lymphatic vessel", "glandular.epithelial.cell.type.1": "epithelial cell of uterus",
    "glandular.epithelial.cell.type.2": "epithelial cell of uterus", "placental.extravillous.trophoblast.cell": "extravillous trophoblast",
    "granulocyte": "granulocyte", "innate.lymphoid.cell": "innate lymphoid cell", "CD16+.natural.killer.cell": "natural killer cell", "T.cell": "T cell",
    "villous.cytotrophoblast.cell": "mononuclear cytotrophoblast cell", "fetal.endothelial.cell": "endothelial cell", "fetal.fibroblast.type.1": "fibroblast",
    "fetal.fibroblast.type.2": "fibroblast", "Hofbauer.cell": "Hofbauer cell", "monocyte": "monocyte", "syncytiotrophoblast.cell": "syncytiotrophoblast cell",
    "Extravillous.trophoblasts": "extravillous trophoblast", "Syncytiotrophoblasts.and.villous.cytotrophoblasts": "trophoblast cell",
    "Trophoblast.giant.cells": None,
    # oesophagus
    "stratified.epithelial.cell": "esophagus non-keratinized squamous epithelial cell", "suprabasal.epithelial.cell": "epithelial cell of esophagus",
    "upper.epithelial.cell": "esophagus non-keratinized squamous epithelial cell", "dendritic.cell": "dendritic cell", "CD8+.T.cell": "CD8-positive, alpha-beta T cell",
    "CD4+.T.cell": "CD4-positive, alpha-beta T cell", "lymph.vessel.cell": "endothelial cell of lymphatic vessel", "basal.epithelial.cell": "epithelial cell of esophagus",
    "blood.vessel.cell": "endothelial cell", "stromal.cell": "fibroblast", "CD27+.B.cell": "memory B cell", "natural.killer.cell.CD8+.cytotoxic.T.cell": "lymphocyte",
    "monocyte.macrophage": "myeloid leukocyte", "submucosal.gland.mucous.cell": "glandular cell of esophagus", "CD27-.B.cell": "B cell",
    "submucosal.gland.duct.cell": "glandular cell of esophagus", "mast.cell": "mast cell",
    # heart
    "Adipocytes": "adipocyte", "Atrial_Cardiomyocyte": "regular atrial cardiac myocyte", "Fibroblast": "fibroblast", "Lymphoid": "lymphocyte",
    "Mesothelial": "mesothelial cell", "Myeloid": "myeloid leukocyte", "Neuronal": "Schwann cell", "Smooth_muscle_cells": "smooth muscle cell",
    "Ventricular_Cardiomyocyte": "regular ventricular cardiac myocyte",
    # intestine
    "Enterocyte": "enterocyte", "Goblet": "intestine goblet cell", "Paneth.like": "paneth cell", "Enteriendocrine": "intestinal enteroendocrine cell",
    "Progenitor": "intestinal epithelial cell", "TA": "transit amplifying cell of gut", "Stem.Cell": "intestinal crypt stem cell",
    # marrow
    "naive.B.cell": "naive B cell", "CD14+.monocyte.type.1": "CD14-positive monocyte", "CD14+.monocyte.type.2": "CD14-positive monocyte",
    "precursor.B.cell": "precursor B cell", "pro.B.cell": "pro-B cell", "natural.killer.cell": "natural killer cell", "erythroid.cell.type.1": "erythroid lineage cell",
    "erythroid.cell.type.2": "erythroid lineage cell", "cytotoxic.T.cell.type.1": "cytotoxic T cell", "cytotoxic.T.cell.type.2": "cytotoxic T cell",
    "CD4+.naive.T.cell": "naive thymus-derived CD4-positive, alpha-beta T cell", "T.helper.cell": "CD4-positive helper T cell",
    "naive.CD8+.T.cell": "naive thymus-derived CD8-positive, alpha-beta T cell", "megakaryocyte": "megakaryocyte", "memory.B.cell": "memory B cell",
    "plasmacytoid.dendritic.cell": "plasmacytoid dendritic cell", "CD16+.monocyte": "CD14-low, CD16-positive monocyte",
    "hematopoietic.stem.cell": "hematopoietic stem cell", "mesenchymal.stem.cell": "fibroblast",
    # liver
    "Central.venous.LSECs": "endothelial cell of hepatic sinusoid", "Periportal.LSECs": "endothelial cell of hepatic sinusoid",
    "Portal.endothelial.cells": "endothelial cell", "Cholangiocytes": "cholangiocyte", "Non.inflammatory.macrophages": "Kupffer cell",
    "Inflammatory.macrophages": "macrophage", "CD3+.alpha.beta.T.cells": "alpha-beta T cell", "NK.like.cells": "natural killer cell",
    "gamma.delta.T.cells.1": "gamma-delta T cell", "gamma.delta.T.cells.2": "gamma-delta T cell", "Mature.B.cells": "B cell", "Stellate.cells": "hepatic stellate cell",
    "Antibody.secreting.B.cells": "plasma cell", "Erthyroid.cells": "erythroid lineage cell",
    **{f"Hep.{i}": "hepatocyte" for i in range(1, 7)},
    # lung
    "CD8+.cytotoxic.T.cell": "CD8-positive, alpha-beta cytotoxic T cell", "alveolar.epithelial.cell.type.2": "pulmonary alveolar type 2 cell",
    "alveolar.epithelial.cell.type.1": "pulmonary alveolar type 1 cell", "MARCOpos.macrophage": "alveolar macrophage", "MARCOneg.macrophage": "macrophage",
    "fibroblast": "fibroblast", "B.cell": "B cell", "muscle.cell": "smooth muscle cell", "ciliated.cell": "lung multiciliated epithelial cell",
    "regulatory.T.cell": "regulatory T cell", "dendritic.cell.type.1": "conventional dendritic cell", "dendritic.cell.type.2": "conventional dendritic cell",
    "activated.dendritic.cell": "dendritic cell",
    # muscle
    "Endothelial.1": "endothelial cell", "Endothelial.2": "endothelial cell", "MuSCs.and.progenitors.1": "skeletal muscle satellite cell",
    "MuSCs.and.progenitors.2": "skeletal muscle satellite cell", "Smooth.muscle.cells": "smooth muscle cell", "Macrophages": "macrophage", "B.T.NK.cells": "lymphocyte",
    "Fibroblasts.1": "fibroblast", "Fibroblasts.2": "fibroblast", "Fibroblasts.3": "fibroblast", "Mature.skeletal.muscle": "skeletal muscle fiber",
    "Platelets": "platelet", "Erythroblasts": "erythroblast",
    # pancreas
    "pancreatic.A.cell": "pancreatic A cell", "acinar.cell": "pancreatic acinar cell", "pancreatic.D.cell": "pancreatic D cell",
    "type.B.pancreatic.cell": "type B pancreatic cell", "pancreatic.ductal.cell": "pancreatic ductal cell", "mesenchymal.cell": "pancreatic stellate cell",
    # prostate
    "basal.epithelia": "basal cell of prostate epithelium", "luminal.epithelia": "luminal cell of prostate epithelium",
    "club.epithelia": "epithelial cell of prostate", "hillock.epithelia": "epithelial cell of prostate", "smooth.muscle": "smooth muscle cell",
    "leukocyte": "leukocyte", "neuroendocrine.epithelia": "neuroendocrine cell",
    # retina
    "retinal.rod.cell.type.A": "retinal rod cell", "retinal.rod.cell.type.B": "retinal rod cell", "retinal.rod.cell.type.C": "retinal rod cell",
    "amacrine.cell": "amacrine cell", "Amacrine.cells": "amacrine cell", "Muller.cell": "Mueller cell",
    **{f"retinal.bipolar.neuron.type.{x}": "retinal bipolar neuron" for x in "ABCD"}, "Bipolar.cells": "retinal bipolar neuron",
    "retinal.cone.cell": "retinal cone cell", "retinal.ganglion.cell": "retinal ganglion cell", "Ganglion.cells": "retinal ganglion cell",
    # skin
    "T.cells": "T cell", "Keratinocytes.1": "keratinocyte", "Keratinocytes.2": "keratinocyte", "Macrophages.DC.1": "myeloid leukocyte",
    "Macrophages.DC.2": "myeloid leukocyte", "Macrophages.DC.3": "myeloid leukocyte", "Melanocytes.1": "melanocyte", "Melanocytes.2": "melanocyte",
    "Secretory.reticular.Fibroblast": "fibroblast of dermis", "Pro.inflammatory.Fibroblast": "fibroblast of dermis",
    "Secretory.papillary.Fibroblast": "fibroblast of dermis", "Mesenchymal.Fibroblast": "fibroblast of dermis", "Vascular.EC": "endothelial cell",
    "Lymphatic.EC": "endothelial cell of lymphatic vessel", "Erythrocytes": "erythrocyte",
    # spleen
    "MAIT.like.CD8+.T.cell": "mucosal-associated invariant T cell", "CD160+.natural.killer.cell": "natural killer cell", "activated.CD8+.T.cell": "CD8-positive, alpha-beta T cell",
    "mantle.B.cell": "naive B cell", "follicular.helper.CD4+.T.cell": "T follicular helper cell", "cytotoxic.CD8+.T.cell": "CD8-positive, alpha-beta cytotoxic T cell",
    "FCGR3A+.natural.killer.cell": "natural killer cell", "naive.CD4+.T.cell": "naive thymus-derived CD4-positive, alpha-beta T cell",
    "follicular.B.cell": "follicular B cell", "macrophage": "macrophage", "regulatory.CD4+.T.cell": "regulatory T cell",
    "gamma.delta.CD8+.T.cell": "gamma-delta T cell", "innate.lymphoid.cells": "innate lymphoid cell", "plasma.IgM.expressing.cell": "plasma cell",
    "hypermutation.B.cell": "germinal center B cell", "platelet": "platelet", "plasma.IgG.expressing.cell": "plasma cell", "plasmablast": "plasmablast",
    "CD34+.progenitor": "hematopoietic precursor cell",
    # testis
    "Elongated.spermatid": "late spermatid", "Sperm.type.1": "sperm", "Sperm.type.2": "sperm", "Leydig": "Leydig cell", "Myoid": "peritubular myoid cell",
    "Round.spermatid": "early spermatid", "Early.primary.spermatocyte": "primary spermatocyte", "Late.primary.spermatocyte": "primary spermatocyte",
    "SSCs": "spermatogonium", "Differentiating.spermatogonia": "spermatogonium", "Sertoli": "Sertoli cell",
    # Descartes
    "Adrenocortical.cells": "cortical cell of adrenal gland", "Chromaffin.cells": "chromaffin cell", "Lymphoid.cells": "lymphocyte",
    "Megakaryocytes": "megakaryocyte", "Myeloid.cells": "myeloid leukocyte", "Schwann.cells": "Schwann cell", "Stromal.cells": "fibroblast",
    "Sympathoblasts": "sympathetic neuron", "Vascular.endothelial.cells": "endothelial cell", "Granule.neurons": "cerebellar granule cell",
    "Inhibitory.interneurons": "GABAergic neuron", "Purkinje.neurons": "Purkinje cell", "Unipolar.brush.cells": None,
    "Excitatory.neurons": "glutamatergic neuron", "Inhibitory.neurons": "GABAergic neuron", "Limbic.system.neurons": "neuron",
    "Corneal.and.conjunctival.epithelial.cells": "epithelial cell", "Horizontal.cells": "retina horizontal cell", "Lens.fibre.cells": "lens fiber cell",
    "Photoreceptor.cells": "eye photoreceptor cell", "Retinal.pigment.cells": "retinal pigment epithelial cell",
    "Retinal.progenitors.and.Muller.glia": None, "Skeletal.muscle.cells": "cell of skeletal muscle", "Cardiomyocytes": "cardiac muscle cell",
    "Endocardial.cells": "endocardial cell", "Epicardial.fat.cells": "mesothelial cell", "Lymphatic.endothelial.cells": "endothelial cell of lymphatic vessel",
    "Visceral.neurons": "autonomic neuron", "ENS.glia": "enteroglial cell", "ENS.neurons": "enteric neuron",
    "Intestinal.epithelial.cells": "intestinal epithelial cell", "Mesothelial.cells": "mesothelial cell", "Mesangial.cells": "mesangial cell",
    "Metanephric.cells": "kidney epithelial cell", "Ureteric.bud.cells": "kidney epithelial cell", "Hematopoietic.stem.cells": "hematopoietic precursor cell",
    "Hepatoblasts": "hepatocyte", "Bronchiolar.and.alveolar.epithelial.cells": "epithelial cell of lung", "Ciliated.epithelial.cells": "multiciliated epithelial cell",
    "Neuroendocrine.cells": "neuroendocrine cell", "Squamous.epithelial.cells": "squamous epithelial cell", "Satellite.cells": "skeletal muscle satellite cell",
    "Acinar.cells": "pancreatic acinar cell", "Ductal.cells": "pancreatic ductal cell", "Islet.endocrine.cells": "pancreatic endocrine cell",
    "Goblet.cells": "foveolar cell of stomach", "Parietal.and.chief.cells": None, "Antigen.presenting.cells": "professional antigen presenting cell",
    "Thymic.epithelial.cells": "epithelial cell of thymus", "Thymocytes": "thymocyte",
}
PROFILE_EXCEPTIONS: dict[tuple[str, str], tuple[str | None, str]] = {
    ("Adult_Decidua_HCA", "plasma.cell"): ("plasmacytoid dendritic cell", "LILRA4, GZMB, SPIB, PLD4 (against the name)"),
    ("Adult_Muscle_DeMicheli", "Platelets"): (None, "genes of capillary endothelium"),
    ("Adult_Skin_HCA", "Melanocytes.2"): (None, "genes of keratinocytes"),
    ("Fetal_Eye_Descartes", "Smooth.muscle.cells"): ("melanocyte", "TYR, DCT, PMEL, PAX3 (against the name)"),
    ("Adult_Muscle_DeMicheli", "Inflammatory.macrophages"): ("macrophage", "a state of macrophages"),
    ("Adult_Rectum_Wang", "Enterocyte"): ("enterocyte of epithelium of large intestine", "of the rectum"),
    ("Adult_Rectum_Wang", "Goblet"): ("large intestine goblet cell", "of the rectum"),
    ("Adult_Rectum_Wang", "TA"): ("transit amplifying cell of colon", "of the rectum"),
    ("Adult_Ileum_Wang", "Enterocyte"): ("enterocyte of epithelium of small intestine", "of the ileum"),
    ("Adult_Ileum_Wang", "Goblet"): ("small intestine goblet cell", "of the ileum"),
    ("Adult_Ileum_Wang", "TA"): ("transit amplifying cell of small intestine", "of the ileum"),
    ("Adult_Rectum_Wang", "Paneth.like"): (None, "Paneth-like cells of the rectum are another type (BEST4 or deep crypt secretory)"),
    ("Fetal_Adrenal_Descartes", "Stromal.cells"): ("fibroblast", "stroma"),
    ("Fetal_Stomach_Descartes", "Squamous.epithelial.cells"): ("squamous epithelial cell", "as named"),
}

TABULA_SAPIENS: dict[str, str | None] = {
    "adventitial cell": "fibroblast", "cardiac muscle cell": "cardiac muscle cell", "cell of skeletal muscle": "cell of skeletal muscle",
    "fibroblast/mesenchymal stem cell": "fibroblast", "melanocyte": "melanocyte", "mesothelial cell": "mesothelial cell",
    "pancreatic stellate cell": "pancreatic stellate cell", "pericyte cell": "pericyte", "schwann cell": "Schwann cell", "smooth muscle cell": "smooth muscle cell",
    "stromal cell": "fibroblast", "tendon cell": "tendon cell", "acinar cell of salivary gland/myoepithelial cell": None,
    "basal cell": "respiratory basal cell", "basal cell of prostate epithelium": "basal cell of prostate epithelium", "bladder urothelial cell": "urothelial cell",
    "ciliated cell/lung ciliated cell": "multiciliated epithelial cell", "ciliated epithelial cell/epithelial cell of uterus": "epithelial cell of uterus",
    "club cell/type i pneumocyte": None, "club cell of prostate epithelium/hillock cell of prostate epithelium/hillock-club cell of prostate epithelium": "epithelial cell of prostate",
    "duct epithelial cell/serous cell of epithelium of bronchus": None, "duodenum glandular cell": None,
    "enterocyte of epithelium of large intestine/enterocyte of epithelium of small intestine/intestinal crypt stem cell of large intestine/large intestine goblet cell/mature enterocyte/paneth cell of epithelium of large intestine/small intestine goblet cell": "intestinal epithelial cell",
    "goblet cell": "goblet cell", "hepatocyte": "hepatocyte",
    "immature enterocyte/intestinal crypt stem cell/intestinal crypt stem cell of small intestine/transit amplifying cell of large intestine": "intestinal epithelial cell",
    "intestinal enteroendocrine cell/paneth cell of epithelium of small intestine/transit amplifying cell of small intestine": "intestinal epithelial cell",
    "intestinal tuft cell": "tuft cell", "intrahepatic cholangiocyte": "cholangiocyte", "ionocyte/luminal epithelial cell of mammary gland": None,
    "keratinocyte": "keratinocyte", "kidney epithelial cell": "kidney epithelial cell", "luminal cell of prostate epithelium": "luminal cell of prostate epithelium",
    "medullary thymic epithelial cell": "epithelial cell of thymus", "mucus secreting cell/secretory cell/tracheal goblet cell": "respiratory tract secretory epithelial cell",
    "pancreatic acinar cell": "pancreatic acinar cell", "pancreatic alpha cell/pancreatic beta cell": "pancreatic endocrine cell",
    "pancreatic delta cell": "pancreatic D cell", "pancreatic ductal cell": "pancreatic ductal cell", "pancreatic pp cell": "pancreatic PP cell",
    "pulmonary ionocyte": "pulmonary ionocyte", "respiratory goblet cell/respiratory mucous cell/serous cell of epithelium of trachea": "respiratory tract secretory epithelial cell",
    "salivary gland cell": None, "type ii pneumocyte": "pulmonary alveolar type 2 cell", "b cell": "B cell", "basophil": "basophil",
    "erythrocyte/erythroid progenitor": "erythroid lineage cell", "hematopoietic stem cell": "hematopoietic precursor cell", "innate lymphoid cell": None,
    "macrophage": "macrophage", "mast cell": "mast cell", "mature conventional dendritic cell": "conventional dendritic cell", "monocyte": "monocyte",
    "myeloid progenitor": "hematopoietic precursor cell", "neutrophil": "neutrophil", "nk cell": "natural killer cell", "plasma cell": "plasma cell",
    "plasmablast": "plasmablast", "platelet": "platelet", "t cell": "T cell", "thymocyte": "thymocyte", "endothelial cell": "endothelial cell",
}
SORTED_IMMUNE: dict[str, str | None] = {
    "Bnaive": "naive B cell", "Breg": "B cell", "CD4Tcm": "CD4-positive, alpha-beta memory T cell", "CD4Tem": "CD4-positive, alpha-beta memory T cell",
    "CD4Temra": "CD4-positive, alpha-beta memory T cell", "CD4Tnaive": "naive thymus-derived CD4-positive, alpha-beta T cell", "CD4Trm": "CD4-positive, alpha-beta memory T cell",
    "CD8Tcm": "CD8-positive, alpha-beta memory T cell", "CD8Tem": "CD8-positive, alpha-beta memory T cell", "CD8Temra": "CD8-positive, alpha-beta memory T cell",
    "CD8Tnaive": "naive thymus-derived CD8-positive, alpha-beta T cell", "CD8Trm": "CD8-positive, alpha-beta memory T cell", "CMonocyte": "CD14-positive monocyte",
    "FOB": "follicular B cell", "GC_B": "germinal center B cell", "ILC1": "innate lymphoid cell", "ILC2": "innate lymphoid cell", "ILC3": "innate lymphoid cell",
    "IMonocyte": "monocyte", "Langerhans": "Langerhans cell", "M0": "macrophage", "M1": "macrophage", "M2": "macrophage",
    "MAIT": "mucosal-associated invariant T cell", "MZB": "B cell", "NKT": "T cell", "NMonocyte": "CD14-low, CD16-positive monocyte", "Tc": "CD8-positive, alpha-beta cytotoxic T cell",
    "Tfh": "T follicular helper cell", "Th1": "CD4-positive helper T cell", "Th1/Th17": "CD4-positive helper T cell", "Th17": "CD4-positive helper T cell", "Th2": "CD4-positive helper T cell",
    "Tr1": "regulatory T cell", "Treg": "regulatory T cell", "basophils": "basophil", "cDC1": "CD141-positive myeloid dendritic cell", "cDC2": "CD1c-positive myeloid dendritic cell",
    "cytotoxicNK": "natural killer cell", "eosinophils": None, "exhaustedB": "B cell", "exhausted_T": "T cell", "gdT": "gamma-delta T cell", "mast_cell": "mast cell",
    "memoryB": "memory B cell", "monoDC": "dendritic cell", "neutrophils": "neutrophil", "pDC": "plasmacytoid dendritic cell", "plasma": "plasma cell", "plasmablast": "plasmablast",
    "regulatoryNK": "natural killer cell",
}
BROAD_HCA: dict[str, str | None] = {
    "NK": "natural killer cell", "Fibroblast": "fibroblast", "Macrophage": "macrophage", "CD4+T": "CD4-positive, alpha-beta T cell", "CD8+T": "CD8-positive, alpha-beta T cell",
    "Endothelial": "endothelial cell", "Myeloid": "myeloid leukocyte", "Monocyte": "monocyte", "Dendritic": "dendritic cell", "Plasma": "plasma cell", "B": "B cell",
    "Epithelial": "epithelial cell",
}
BRAIN: dict[str, dict[str, str | None]] = {
    "Allen_Human_MTG_level1": {"GABAergic": "GABAergic neuron", "Glutamatergic": "glutamatergic neuron", "Non.neuronal": None},
    "DroNc_Human_Hippocampus": {
        "ASC1": "astrocyte", "ASC2": "astrocyte", "END": "endothelial cell", "exCA1": "glutamatergic neuron", "exCA3": "glutamatergic neuron",
        "exDG": "glutamatergic neuron", "exPFC1": "glutamatergic neuron", "exPFC2": "glutamatergic neuron", "GABA1": "GABAergic neuron",
        "GABA2": "GABAergic neuron", "MG": "microglial cell", "NSC": None, "ODC1": "oligodendrocyte", "ODC2": "oligodendrocyte", "OPC": "oligodendrocyte precursor cell",
    },
    "GSE168408_Human_Prefrontal_Cortex_level2_Adult": {
        "Astro": "astrocyte", "ID2": "GABAergic interneuron", "L2.3_CUX2": "L2/3 intratelencephalic projecting glutamatergic neuron", "L4_RORB": "glutamatergic neuron",
        "L5.6_THEMIS": "glutamatergic neuron", "L5.6_TLE4": "glutamatergic neuron", "LAMP5_NOS1": "lamp5 GABAergic interneuron", "Micro": "microglial cell",
        "Oligo": "oligodendrocyte", "OPC": "oligodendrocyte precursor cell", "PV": "pvalb GABAergic interneuron", "PV_SCUBE3": "pvalb GABAergic interneuron",
        "SST": "sst GABAergic interneuron", "Vas": None, "VIP": "VIP GABAergic interneuron",
    },
    "GSE168408_Human_Prefrontal_Cortex_level2_Fetal": {
        "Astro": "astrocyte", "CGE_dev": "GABAergic neuron", "ID2": "GABAergic interneuron", "L2.3_CUX2": "L2/3 intratelencephalic projecting glutamatergic neuron",
        "L4_RORB": "glutamatergic neuron", "L5.6_THEMIS": "glutamatergic neuron", "L5.6_TLE4": "glutamatergic neuron", "LAMP5_NOS1": "lamp5 GABAergic interneuron",
        "MGE_dev": "GABAergic neuron", "Micro": "microglial cell", "Oligo": "oligodendrocyte", "OPC": "oligodendrocyte precursor cell", "PN_dev": "glutamatergic neuron",
        "PV": "pvalb GABAergic interneuron", "PV_SCUBE3": "pvalb GABAergic interneuron", "SST": "sst GABAergic interneuron", "Vas": None, "VIP": "VIP GABAergic interneuron",
    },
    "Linnarsson_GSE76381_Human_Midbrain": {
        "DA0": "midbrain dopaminergic neuron", "DA1": "midbrain dopaminergic neuron", "DA2": "midbrain dopaminergic neuron", "Endo": "endothelial cell", "Gaba": "GABAergic neuron",
        "Mgl": "microglial cell", "NbGaba": "neuroblast (sensu Vertebrata)", "NbM": "neuroblast (sensu Vertebrata)", "NbML1": "neuroblast (sensu Vertebrata)",
        "NbML5": "neuroblast (sensu Vertebrata)", "NProg": "neural progenitor cell", "OMTN": "motor neuron", "OPC": "oligodendrocyte precursor cell", "Peric": "pericyte",
        "ProgBP": "neural progenitor cell", "ProgFPL": "neural progenitor cell", "ProgFPM": "neural progenitor cell", "ProgM": "neural progenitor cell",
        "Rgl1": "radial glial cell", "Rgl2a": "radial glial cell", "Rgl2b": "radial glial cell", "Rgl2c": "radial glial cell", "Rgl3": "radial glial cell",
        "RN": "glutamatergic neuron", "Sert": "serotonergic neuron",
    },
    "PsychENCODE_Adult": {
        "Astro": "astrocyte", "Endo": "endothelial cell", **{f"Ex{x}": "glutamatergic neuron" for x in ("1", "2", "3e", "4", "5b", "6a", "6b", "8", "9")},
        **{f"In{x}": "GABAergic neuron" for x in ("1a", "1b", "1c", "3", "4a", "4b", "6a", "6b", "7", "8")}, "Microglia": "microglial cell", "Oligo": "oligodendrocyte",
        "OPC": "oligodendrocyte precursor cell", "Per": "pericyte",
    },
}  # fmt: skip
