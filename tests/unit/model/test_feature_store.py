"""The feature store: the same bytes however it was made, and no byte taken on trust."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from common.errors import TrainingDataError
from firstread.cli import app
from model.bundles import Bundle
from model.pipelines import load_pipeline
from model.preprocessing import prepare
from model.training.feature_encoding import encode_manifest
from model.training.feature_store import FeatureStore
from model.training.manifests import Manifest, ManifestRow, write_manifest
from tests.small_bundle import write_small_bundle

IMAGES = 11


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Eleven images of noise, as PNG."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    rows: list[ManifestRow] = []
    for number in range(IMAGES):
        path = folder / f"{number}.png"
        Image.fromarray(generator.integers(0, 255, (70, 60), dtype=np.uint8)).save(path)
        split = "val" if number % 3 == 0 else "train"
        rows.append(ManifestRow(path, number % 2 == 0, f"p{number}", split, {"sex": "F"}))
    return write_manifest(folder / "manifest.csv", rows)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with random weights."""
    return write_small_bundle(tmp_path_factory.mktemp("bundle"))


def encode(
    manifest: Manifest, bundle: Bundle, folder: Path, rank: int = 0, processes: int = 1
) -> FeatureStore | None:
    return encode_manifest(
        manifest, bundle, folder, "cpu", batch_size=2, shard_rows=4, rank=rank, processes=processes
    )


def stored(folder: Path) -> dict[str, str]:
    """Hash every file but the run record, which holds the time."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name != "run.json"
    }


def test_the_store_holds_what_the_network_sees(
    manifest: Manifest, bundle: Bundle, tmp_path: Path
) -> None:
    store = encode(manifest, bundle, tmp_path)
    assert store is not None
    images = np.stack(
        [
            prepare(np.asarray(Image.open(row.path), dtype=np.float32) / 255, bundle.preprocessing)[
                0
            ]
            for row in manifest.rows
        ]
    )
    predicted = load_pipeline(bundle, "cpu").predict(images)
    np.testing.assert_allclose(store.scores, [one.score for one in predicted], atol=1e-5)
    np.testing.assert_allclose(
        store.insight_probabilities, [one.insight_probability for one in predicted], atol=1e-5
    )
    assert store.embeddings.dtype == np.float32
    assert store.rows == manifest.rows
    assert store.bundle_sha256 == bundle.sha256
    assert store.manifest_fingerprint == manifest.fingerprint
    assert store.rows_of("val").tolist() == [0, 3, 6, 9]


def test_spatial_maps_come_in_the_order_asked_for(
    manifest: Manifest, bundle: Bundle, tmp_path: Path
) -> None:
    store = encode(manifest, bundle, tmp_path)
    assert store is not None
    every_map = store.spatial(range(IMAGES))
    assert every_map.shape == (IMAGES, *store.spatial_shape)
    assert every_map.dtype == np.float16
    wanted = [10, 0, 5, 5, 3]
    np.testing.assert_array_equal(store.spatial(wanted), every_map[wanted])
    assert store.spatial([]).shape == (0, *store.spatial_shape)
    with pytest.raises(IndexError):
        store.spatial([IMAGES])


def test_a_job_that_was_stopped_ends_with_the_same_bytes(
    manifest: Manifest, bundle: Bundle, tmp_path: Path
) -> None:
    encode(manifest, bundle, tmp_path / "whole")
    encode(manifest, bundle, tmp_path / "stopped")
    for name in ("store.json", "shard-00001.json", "embeddings-00002.npy"):
        (tmp_path / "stopped" / name).unlink()
    damaged = tmp_path / "stopped" / "spatial-00000.npy"
    damaged.write_bytes(damaged.read_bytes()[:-2] + b"xx")
    assert encode(manifest, bundle, tmp_path / "stopped") is not None
    assert stored(tmp_path / "stopped") == stored(tmp_path / "whole")


def test_two_processes_make_the_store_that_one_makes(
    manifest: Manifest, bundle: Bundle, tmp_path: Path
) -> None:
    encode(manifest, bundle, tmp_path / "one")
    assert encode(manifest, bundle, tmp_path / "two", rank=1, processes=2) is None
    with pytest.raises(TrainingDataError, match="no finished features"):
        FeatureStore.open(tmp_path / "two")
    assert encode(manifest, bundle, tmp_path / "two", rank=0, processes=2) is not None
    assert stored(tmp_path / "two") == stored(tmp_path / "one")


@pytest.mark.parametrize("name", ["embeddings-00001.npy", "spatial-00002.npy", "rows.csv"])
def test_a_changed_byte_is_found_on_opening(
    manifest: Manifest, bundle: Bundle, tmp_path: Path, name: str
) -> None:
    encode(manifest, bundle, tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(TrainingDataError, match=name):
        FeatureStore.open(tmp_path)


def test_features_of_another_bundle_do_not_mix_with_those_there(
    manifest: Manifest, bundle: Bundle, tmp_path: Path
) -> None:
    encode(manifest, bundle, tmp_path / "features")
    other = write_small_bundle(tmp_path / "other", version="0.0.2")
    with pytest.raises(TrainingDataError, match="another manifest or bundle"):
        encode(manifest, other, tmp_path / "features")


def test_an_image_that_cannot_be_read_is_named(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    row = ManifestRow(tmp_path / "broken.png", True, "p", "train")
    manifest = write_manifest(tmp_path / "manifest.csv", [row])
    with pytest.raises(TrainingDataError, match=r"broken\.png cannot be read"):
        encode(manifest, bundle, tmp_path / "features")


def test_an_encoder_without_a_head_is_encoded_with_and_has_no_scores(
    manifest: Manifest, bundle: Bundle, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    from model.bundles import WEIGHTS, read_bundle, write_description

    folder = tmp_path / "headless"
    folder.mkdir()
    weights = load_file(bundle.weights)
    save_file({k: v for k, v in weights.items() if k.startswith("encoder.")}, folder / WEIGHTS)
    (folder / "card.md").write_text((bundle.folder / "card.md").read_text())
    write_description(folder, bundle.model_dump(exclude={"files", "folder", "sha256"}))
    headless = encode(manifest, read_bundle(folder), tmp_path / "features")
    whole = encode(manifest, bundle, tmp_path / "whole")
    assert headless is not None
    assert whole is not None
    np.testing.assert_array_equal(headless.embeddings, whole.embeddings)
    assert not headless.has_heads
    with pytest.raises(TrainingDataError, match="without heads"):
        _ = headless.scores


def test_the_command_encodes_and_says_how_many(
    manifest: Manifest, bundle: Bundle, tmp_path: Path
) -> None:
    command = ["train", "features", str(manifest.path), "--bundle", str(bundle.folder)]
    result = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "f"), "--no-spatial"])
    assert result.exit_code == 0, result.output
    assert f"{IMAGES} images, 32 features each" in result.stdout
    assert not list((tmp_path / "f").glob("spatial-*"))
    unknown = CliRunner().invoke(
        app, ["train", "features", str(manifest.path), "--bundle", "x", "--out", str(tmp_path)]
    )
    assert unknown.exit_code == 2
    assert "no bundle 'x'" in unknown.stderr
