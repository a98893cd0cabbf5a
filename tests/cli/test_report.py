"""The HTML report: content, escaping, and rendering in a browser."""

from __future__ import annotations

import base64
import html
import json
import re
import shutil
import struct
import subprocess
from html.parser import HTMLParser

import anndata
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from sccello_tools.cli.report import render_report
from sccello_tools.errors import GroupError, NotFoundError

EVIL = "<script>document.title='run'</script>"
WORSE = "\"'><img src=x onerror=\"document.title='run'\">"
TERMS = {"B cell": "CL:0000236", "neuron": "CL:0000540", "type B pancreatic cell": "CL:0000169"}
N = 90


def annotated():
    """Annotated cells with names that would be code if they were not escaped."""
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(4), [40, 30, 15, 5])
    names = [*TERMS, EVIL]
    adata = anndata.AnnData(np.zeros((N, 3), dtype=np.float32))
    adata.var_names = ["INS", WORSE, "ENSG00000115263"]
    adata.obs["sccello_cell_type"] = pd.Categorical.from_codes(codes, names)
    adata.obs["sccello_cell_type_confidence"] = rng.random(N).astype(np.float32)
    adata.obs["sccello_novelty"] = rng.normal(size=N).astype(np.float32)
    status = np.where(np.arange(N) < 60, "novel_subtype", "known")
    adata.obs["sccello_cell_type_status"] = pd.Categorical(status)
    adata.obs["donor"] = pd.Categorical(np.where(np.arange(N) % 3 == 0, WORSE, "d2"))
    adata.obs["mine"] = pd.Categorical.from_codes(codes, ["B cell", EVIL, WORSE, "$\\frac{$x$"])
    adata.obsm["X_umap"] = rng.normal(size=(N, 2)) + 6 * np.eye(4)[codes][:, :2]
    adata.uns["sccello_cell_type"] = {"model": "sccello-small", "note": EVIL}
    fields = (
        "scores",
        "mean_scores",
        "logfoldchanges",
        "pvals",
        "pvals_adj",
        "fractions",
        "reference_fractions",
    )
    values = pd.DataFrame({name: [2.0, 1.0, -1.0] for name in ("B cell", EVIL)})
    result = {field: values.to_records(index=False) for field in fields}
    genes = pd.DataFrame(
        {"B cell": ["INS", WORSE, "ENSG00000115263"], EVIL: ["ENSG00000115263", "INS", WORSE]}
    )
    result["names"] = genes.to_records(index=False)
    result["params"] = {"groupby": EVIL}
    adata.uns["sccello_marker_genes"] = result
    return adata


@pytest.fixture
def cells():
    return annotated()


@pytest.fixture(scope="module")
def page():
    return render_report(
        annotated(), title=f"Cells {EVIL}", label_key="mine", batch_key="donor", notes=(WORSE,)
    )


class Page(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += f"{data} "


def test_names_are_escaped(page):
    parsed = Page(page)
    assert "script" not in {tag for tag, _ in parsed.tags}
    attributes = [name for _, attrs in parsed.tags for name in attrs]
    assert not [name for name in attributes if name.startswith("on")]
    # shown as text in the heading, the composition, the samples, the markers and the notes
    assert parsed.text.count(EVIL) >= 6
    assert parsed.text.count(WORSE) >= 3
    assert html.escape(EVIL, quote=False).replace("'", "&#39;") in page


def test_no_external_resources(page):
    for tag, attrs in Page(page).tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base"}
        for name in ("src", "href", "srcset", "action", "poster"):
            assert attrs.get(name, "data:").startswith("data:")
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_content(cells, page):
    text = " ".join(Page(page).text.split())
    assert "90 cells, 3 genes" in text
    assert "4 cell types" in text
    median = np.median(cells.obs["sccello_cell_type_confidence"])
    assert f"{median:.2f} median confidence" in text
    assert "67% novel or unknown cells" in text
    mean = cells.obs["sccello_cell_type_confidence"][:40].mean()
    assert f"B cell CL:0000236 40 44.4% {mean:.2f} 100%" in text
    assert "GCG" in text  # the symbol of ENSG00000115263
    assert "Most cells are novel or unknown" in text
    assert "sccello-small" in text
    # fractions of a sample add up to one
    samples = page.partition('id="samples"')[2].partition("</section>")[0]
    shares = re.findall(r"([\d.]+)%</td></tr>", samples)
    assert len(shares) == 4
    assert sum(map(float, shares)) == pytest.approx(100, abs=0.3)


def test_missing_results_are_omitted(cells):
    for column in ("sccello_cell_type_confidence", "sccello_cell_type_status", "sccello_novelty"):
        del cells.obs[column]
    del cells.uns["sccello_marker_genes"]
    cells.obs.loc[cells.obs_names[:3], "sccello_cell_type"] = np.nan
    page = render_report(cells)
    text = " ".join(Page(page).text.split())
    assert "3 cells have no cell type" in text
    assert "No marker genes were computed" in text
    for word in (
        "median confidence",
        "Confidence and novelty",
        "Composition of samples",
        "existing labels",
    ):
        assert word not in text


def test_the_same_cells_give_the_same_page(cells):
    assert render_report(cells) == render_report(cells)


def test_errors(cells):
    with pytest.raises(GroupError, match="'batch'"):
        render_report(cells, batch_key="batch")
    with pytest.raises(GroupError, match="'nothing'"):
        render_report(cells, key="nothing")
    del cells.obsm["X_umap"]
    with pytest.raises(NotFoundError, match=r"tl\.embed"):
        render_report(cells)


BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


def browse(folder, *options):
    """Run a browser without a screen, a profile or the network; returns what it prints."""
    profile = folder / "profile"
    profile.mkdir(exist_ok=True)
    command = [
        *(
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
        ),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--hide-scrollbars", f"--user-data-dir={profile}", *options),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.skipif(
    BROWSER is None, reason="no chromium on this machine (apt-get install chromium)"
)
def test_in_a_browser(page, tmp_path):
    """It is drawn, all pictures in it, on a desk and on a phone, and nothing in it runs."""
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    address = (tmp_path / "page.html").as_uri()
    for name, size in (("desk", "1200,1400"), ("phone", "500,1400")):
        browse(tmp_path, f"--window-size={size}", f"--screenshot={tmp_path / name}.png", address)
        image = mpl.image.imread(tmp_path / f"{name}.png")[..., :3]
        assert image.shape[1] == int(size.split(",")[0])
        assert (
            image[:40, :40].mean(axis=(0, 1))[2] > image[:40, :40].mean(axis=(0, 1))[0]
        )  # the blue head
        assert len(np.unique((image * 255).astype(np.uint8).reshape(-1, 3), axis=0)) > 300
    # scripts of the page cannot run; one of ours, around it, may look whether they did and how wide it all is
    probe = """<!doctype html><meta charset="utf-8"><body><iframe id="f" src="page.html" style="width:390px;height:900px"></iframe>
<script>f.onload = () => { const d = f.contentDocument, i = [...d.images];
document.title = JSON.stringify([d.title, i.length, i.every(x => x.complete && x.naturalWidth > 0), d.scripts.length,
d.documentElement.scrollWidth]); }</script>"""
    (tmp_path / "probe.html").write_text(probe, encoding="utf-8")
    dom = browse(
        tmp_path,
        "--allow-file-access-from-files",
        "--virtual-time-budget=5000",
        "--dump-dom",
        (tmp_path / "probe.html").as_uri(),
    )
    title = html.unescape(re.search(r"<title>(.*?)</title>", dom, re.DOTALL).group(1))
    said = json.loads(title)
    assert said[0] == f"Cells {EVIL}"  # had a script run, the title would be "run"
    assert said[1:4] == [3, True, 0]
    assert said[4] <= 390  # nothing sticks out to the side on a phone


def test_pictures_are_pictures(page):
    sources = [attrs["src"] for tag, attrs in Page(page).tags if tag == "img"]
    assert [source.split(";")[0] for source in sources] == [
        "data:image/png",
        "data:image/svg+xml",
        "data:image/svg+xml",
    ]
    png = base64.b64decode(sources[0].split(",")[1])
    assert struct.unpack(">I", png[16:20])[0] > 600  # pixels across
    for source in sources[1:]:
        svg = base64.b64decode(source.split(",")[1]).decode()
        assert "<svg" in svg
        assert "<script" not in svg
    assert all(attrs["alt"] for tag, attrs in Page(page).tags if tag == "img")
