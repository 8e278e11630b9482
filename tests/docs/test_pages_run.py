"""The tutorials, run to the letter in an empty folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bundles import small_network, write_small_bundle
from documentation import DOCS, TUTORIALS, Block, as_script, blocks_of, read_blocks
from parity.test_golden import renamed
from veloxseg.bundle.format import Normalisation
from veloxseg.datasets.phantoms import phantom
from veloxseg.network import DistillationModel, VeloxSeg
from veloxseg.network.published import published_config
from veloxseg.volumes.reading import write_volume
from veloxseg.volumes.volume import Volume

SECONDS = 540


@pytest.mark.slow
def test_the_nnunet_tutorial_runs_from_its_first_block_to_its_last(tmp_path: Path) -> None:
    run([block for block in tutorial("nnunet") if block.mark != "not run"], tmp_path)


@pytest.mark.slow
def test_the_deployers_tutorial_runs_with_the_model_that_is_shipped(tmp_path: Path) -> None:
    run([block for block in tutorial("deployer") if block.mark != "not run"], tmp_path)


@pytest.mark.parametrize("name", ["first_minute", "deployer"])
def test_pages_on_the_hippocampus_run_with_a_model_of_random_weights(
    name: str, tmp_path: Path
) -> None:
    write_small_bundle(
        tmp_path / "models" / "hippocampus.veloxseg",
        network=small_network(in_channels=(1,)),
        channels=("MRI",),
        labels={"background": 0, "Anterior": 1, "Posterior": 2},
        normalisation=(Normalisation(scheme="z_score"),),
    )
    run([block for block in tutorial(name) if not block.mark], tmp_path)
    assert (tmp_path / "demo_hippocampus" / "hippocampus_mask.png").is_file()
    assert (tmp_path / "masks_mine" / "hippocampus_right.nii.gz").is_file() == (name == "deployer")


def test_every_block_that_is_not_run_gives_a_reason_that_holds() -> None:
    skipped = [b for page in TUTORIALS for b in read_blocks(page) if b.mark == "not run"]
    assert len(skipped) == 6
    for block in skipped:
        assert block.code.startswith(("pip install", "pip wheel", "nnUNetv2_train")), block


def test_marks_hold_for_the_next_block_alone() -> None:
    text = "<!-- slow: trains -->\n```bash\na\n```\n\n```python\nb\n```\n\n```json\nc\n```\n"
    assert [(one.code, one.mark) for one in blocks_of(text, page=Path("x"))] == [
        ("a\n", "slow"),
        ("b\n", ""),
    ]


def test_a_block_that_fails_fails_the_page_and_is_named(tmp_path: Path) -> None:
    text = "```bash\nexport X=1\n```\n\n```python\nimport os\nassert os.environ['X'] == '2'\n```\n"
    with pytest.raises(AssertionError, match=r"page\.md, line 6"):
        run(blocks_of(text, page=Path("page.md")), tmp_path)


def test_the_published_tutorial_runs_with_a_checkpoint_of_random_weights(tmp_path: Path) -> None:
    blocks = tutorial("published")
    config = json.loads(blocks[1].code.partition("<<'END'\n")[2].partition("END\n")[0])
    torch.manual_seed(0)
    weights = renamed(DistillationModel(VeloxSeg(published_config(config))))
    torch.save(
        {"model": {name: value.clone() for name, value in weights.items()}},
        tmp_path / "checkpoint.pth",
    )
    put_patient(tmp_path / "patients")
    run([block for block in blocks if not block.mark], tmp_path)
    assert (tmp_path / "masks" / "phantom_000.nii.gz").is_file()


def tutorial(name: str) -> list[Block]:
    return read_blocks(DOCS / "tutorials" / f"{name}.md")


def put_patient(folder: Path) -> None:
    """A phantom's CT, every third voxel of it, and the same again for PET."""
    ct = phantom(0, 0).ct.data[::3, ::3, ::3]
    for channel in range(2):
        image = Volume(data=np.ascontiguousarray(ct), spacing_zyx=(11.4, 9.6, 9.6))
        write_volume(folder / f"phantom_000_000{channel}.nii.gz", image)


def run(blocks: list[Block], folder: Path) -> None:
    assert blocks
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("nnUNet_")},
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "VELOXSEG_CACHE": str(folder / ".cache"),
        "VELOXSEG_MODELS": str(folder / "models"),
        "nnUNet_n_proc_DA": "0",
    }
    done = subprocess.run(
        ["bash", "-c", as_script(blocks)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
