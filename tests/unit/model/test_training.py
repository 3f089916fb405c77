"""Training: learns, resumes where it stopped, draws fairly, keeps out what it must not see."""

from pathlib import Path

import numpy as np
import pytest
import torch

from model.evaluation.discrimination import auc
from model.network import TriageNetwork, build_network
from model.training import near_neighbours
from model.training.augmentation import Augmentation, augment
from model.training.cases import Case
from model.training.loop import Batch, Stage, TrainingConfig, train
from model.training.phantom_set import cells_of_boxes
from model.training.predictions import predict_images
from model.training.sampling import SHARES, group_of, sampling_probabilities
from tests.small_bundle import ENCODER

CONFIG = TrainingConfig(
    stages=(Stage(size_px=32, samples=320),),
    batch_size=16,
    learning_rate=3e-3,
    warmup_samples=32,
    average_steps=5,
    drop_path=0.0,
    dropout=0.0,
    save_every=10,
)


class Blobs:
    """Noise, with a bright square in the abnormal half."""

    findings = 2

    def draw(self, count: int, size_px: int, generator: np.random.Generator) -> Batch:
        """Draw blobs."""
        images = generator.random((count, size_px, size_px)).astype(np.float32) * 0.3
        target = (generator.random(count) < 0.5).astype(np.float32)
        images[target > 0, 8:20, 8:20] += 0.6
        findings = torch.full((count, self.findings), torch.nan)
        return Batch(torch.from_numpy(images), torch.from_numpy(target), findings)


def run(folder: Path, config: TrainingConfig) -> TriageNetwork:
    torch.manual_seed(config.seed)
    network = build_network(ENCODER.model_dump())
    how = Augmentation(erase=0)
    return train(network, Blobs(), config, how, folder, lambda _network, _size: {})


def test_training_learns_and_a_resumed_run_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    unbroken = run(tmp_path / "unbroken", CONFIG)

    class StopError(Exception):
        pass

    def stop(_network: TriageNetwork, _size: int) -> dict[str, float]:
        raise StopError

    torch.manual_seed(CONFIG.seed)
    network = build_network(ENCODER.model_dump())
    with pytest.raises(StopError):
        train(network, Blobs(), CONFIG, Augmentation(erase=0), tmp_path / "broken", stop)
    resumed = run(tmp_path / "broken", CONFIG)

    pairs = zip(unbroken.parameters(), resumed.parameters(), strict=True)
    assert max((one - other).abs().max().item() for one, other in pairs) < 1e-5
    batch = Blobs().draw(60, 32, np.random.default_rng(99))
    predicted = predict_images(unbroken, batch.images.numpy(), CONFIG.mean, CONFIG.std)
    assert auc(batch.target, predicted.score) > 0.95


def case(dataset: str, abnormal: bool, *, adult: bool = True) -> Case:
    return Case(Path("x.jpg"), "train", dataset, abnormal, adult, "", None, "", "", None)


def test_each_source_and_label_is_drawn_by_its_share_whatever_its_size() -> None:
    cases = [case("nih_cxr14", False)] * 3 + [case("nih_cxr14", True)] * 7
    cases += [case("crd_normal", False)] * 50 + [case("hannover_covid", True)] * 2
    cases += [case("kermany_pediatric", label, adult=False) for label in (False, True)]

    chances = sampling_probabilities(cases)

    for (group, abnormal), share in SHARES.items():
        rows = [group_of(c) == group and c.abnormal == abnormal for c in cases]
        assert chances[rows].sum() == pytest.approx(share)
    assert chances[[c.abnormal for c in cases]].sum() == pytest.approx(0.5)


def test_an_image_seen_again_in_other_greys_and_size_is_a_near_neighbour() -> None:
    generator = np.random.default_rng(0)
    chest = np.hypot(*np.mgrid[-1:1:96j, -1:1:96j]) * 120
    images = np.stack([chest + _texture(generator) for _ in range(80)]).clip(0, 255)
    copies = (images[:5] * 0.8 + 20).astype(np.uint8)
    embedded = near_neighbours.embed(np.concatenate([images.astype(np.uint8), copies]))

    cosine = near_neighbours.nearest_cosine(embedded[80:], embedded[:80])
    others = near_neighbours.nearest_cosine(embedded[5:80], embedded[:5])

    assert (cosine > near_neighbours.THRESHOLD).all()
    assert (others < near_neighbours.THRESHOLD).mean() > 0.9


def _texture(generator: np.random.Generator) -> np.ndarray:
    return np.kron(generator.normal(0, 25, size=(12, 12)), np.ones((8, 8)))


def test_augmentation_keeps_shape_and_range_and_follows_its_generator() -> None:
    images = torch.rand(4, 48, 48)

    one, two, other = (
        augment(images.clone(), Augmentation(), torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )

    assert one.shape == images.shape
    assert one.min() >= 0
    assert one.max() <= 1
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_an_augmentation_of_nothing_changes_nothing() -> None:
    still = Augmentation(**dict.fromkeys(vars(Augmentation()), 0.0))
    images = torch.rand(2, 32, 32)

    assert torch.allclose(augment(images.clone(), still, torch.Generator()), images, atol=1e-5)


def test_cells_tell_how_much_of_them_a_box_covers() -> None:
    boxes = np.array([[[0.5, 0.25, 0.25, 0.125], [np.nan] * 4]], dtype=np.float32)

    cells = cells_of_boxes(boxes, 4)

    expected = np.zeros((1, 4, 4), dtype=np.float32)
    expected[0, 1, 2] = 0.5
    assert np.allclose(cells, expected)
