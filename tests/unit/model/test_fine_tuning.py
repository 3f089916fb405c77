"""Fine-tuning: learns, resumes to the same bits, does not depend on how a batch is cut."""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from common.errors import ConfigurationError, TrainingDataError
from model.bundles import Bundle, read_bundle
from model.encoders.compact_regnet import CompactRegNetSpec
from model.evaluation.prediction_table import read_predictions
from model.network import build_network
from model.training.checkpoints import Progress, read_checkpoint, write_checkpoint
from model.training.feature_encoding import encode_manifest
from model.training.finetune import FinetuneConfig, finetune
from model.training.finetune_model import FinetuneModel
from model.training.fitting import Fit, FitConfig, fit
from model.training.insight_job import InsightConfig, train_insight
from model.training.manifests import Manifest
from model.training.optimisation import checkpoint_gradients, warm_cosine
from model.training.processes import Processes
from tests.blob_manifest import write_blob_manifest
from tests.small_bundle import ENCODER, write_small_bundle

CPU, ALONE = torch.device("cpu"), Processes()
FIT = FitConfig(
    epochs=2, batch_size=6, chunk_size=3, learning_rate=1e-3, average_decay=0.8, save_every=3
)
CONFIG = FinetuneConfig(fit=FIT, drop_path=0.1, dropout=0.1, findings_share=0.5)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return write_blob_manifest(tmp_path_factory.mktemp("blobs"))


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_small_bundle(tmp_path_factory.mktemp("start") / "small")


def tune(manifest: Manifest, start: Bundle, out: Path, config: FinetuneConfig = CONFIG) -> Bundle:
    finetune(manifest, start, out, config, device=CPU, processes=ALONE)
    return read_bundle(out / "bundle")


class Points:
    """A line to learn, with noise from each chunk's own generator; may stop half way."""

    def __init__(self, stop_after: int | None = None) -> None:
        self._x = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
        self._left = stop_after

    def __len__(self) -> int:
        return len(self._x)

    def chunk(
        self, rows: NDArray[np.intp], batch: NDArray[np.intp], generator: torch.Generator
    ) -> Sequence[Tensor]:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise KeyboardInterrupt
        x = torch.from_numpy(self._x[rows])
        noise = 0.1 * torch.randn(x.shape, generator=generator)
        return x + noise, x[:, :1] * 2, torch.tensor(len(rows) / len(batch))


class Line(nn.Module):
    """A line behind a batch norm, with dropout."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layers = nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 1))

    def forward(self, x: Tensor, y: Tensor, share: Tensor) -> Tensor:
        return (self.layers(x) - y).square().mean() * share


def fit_line(folder: Path, points: Points, config: FitConfig) -> dict[str, Tensor]:
    around = Fit(folder, ALONE, CPU, lambda _model, _epoch: None)
    return fit(Line(), points, config, around).state_dict()


def test_a_run_stopped_between_checkpoints_ends_bit_equal_to_one_that_was_not(
    tmp_path: Path,
) -> None:
    config = FitConfig(epochs=4, batch_size=8, chunk_size=4, learning_rate=0.03, save_every=3)
    whole = fit_line(tmp_path / "whole", Points(), config)
    with pytest.raises(KeyboardInterrupt):
        fit_line(tmp_path / "stopped", Points(stop_after=23), config)  # in step 12; saved at 10

    resumed = fit_line(tmp_path / "stopped", Points(), config)

    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert not torch.equal(whole["layers.2.weight"], Line().state_dict()["layers.2.weight"])


def test_a_run_stopped_at_the_end_of_an_epoch_measures_every_epoch_and_ends_the_same(
    tmp_path: Path,
) -> None:
    config = FitConfig(epochs=3, batch_size=8, chunk_size=4, learning_rate=0.03, save_every=5)
    measured: list[tuple[int, float]] = []

    def run(folder: str, stop_in: int | None = None) -> None:
        def measure(model: nn.Module, epoch: int) -> None:
            if epoch == stop_in:
                raise KeyboardInterrupt
            weights = [float(p.detach().double().sum()) for p in model.parameters()]
            measured.append((epoch, sum(weights)))

        fit(Line(), Points(), config, Fit(tmp_path / folder, ALONE, CPU, measure))

    run("whole")
    whole = measured.copy()
    measured.clear()
    with pytest.raises(KeyboardInterrupt):
        run("stopped", stop_in=2)
    run("stopped")

    assert [epoch for epoch, _ in whole] == [1, 2, 3]
    assert measured == whole


def test_a_fine_tuned_network_is_bit_equal_after_a_stop(
    manifest: Manifest, start: Bundle, tmp_path: Path
) -> None:
    def stop(line: str) -> None:
        if line.startswith("epoch 1"):
            raise KeyboardInterrupt

    whole = tune(manifest, start, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        finetune(
            manifest, start, tmp_path / "stopped", CONFIG, device=CPU, processes=ALONE, say=stop
        )

    resumed = tune(manifest, start, tmp_path / "stopped")

    averages = [
        load_file(tmp_path / run / "checkpoint" / "average.safetensors")
        for run in ("whole", "stopped")
    ]
    assert all(torch.equal(averages[0][name], averages[1][name]) for name in averages[0])
    assert whole.files["weights.safetensors"] == resumed.files["weights.safetensors"]
    assert (tmp_path / "whole" / "predictions.csv").read_text() == (
        tmp_path / "stopped" / "predictions.csv"
    ).read_text().replace(resumed.sha256, whole.sha256)


def test_batch_norms_keep_their_statistics_so_that_chunks_do_not_matter(tmp_path: Path) -> None:
    no_chance = {"epochs": 2, "batch_size": 8, "learning_rate": 0.03}
    ends = []
    for chunk in (2, 8):
        model = Line()
        model.layers[1] = nn.Identity()  # dropout is drawn by chunk
        around = Fit(tmp_path / str(chunk), ALONE, CPU, lambda _model, _epoch: None)
        points = Points()
        quiet = _Quiet(points)
        ends.append(
            fit(model, quiet, FitConfig(chunk_size=chunk, **no_chance), around).state_dict()
        )

    for name in ends[0]:
        torch.testing.assert_close(ends[0][name], ends[1][name], rtol=1e-5, atol=1e-6)
    assert torch.equal(ends[0]["layers.0.running_mean"], torch.zeros(8))
    assert not torch.equal(ends[0]["layers.0.weight"], torch.ones(8))


class _Quiet:
    """Points without their noise."""

    def __init__(self, points: Points) -> None:
        self._points = points

    def __len__(self) -> int:
        return len(self._points)

    def chunk(
        self, rows: NDArray[np.intp], batch: NDArray[np.intp], generator: torch.Generator
    ) -> Sequence[Tensor]:
        _, y, share = self._points.chunk(rows, batch, generator)
        x = torch.zeros(len(rows), 8)
        x[:, :1] = y / 2
        return x, y, share


def test_fine_tuning_learns_and_leaves_an_incomplete_candidate_with_predictions(
    manifest: Manifest, start: Bundle, tmp_path: Path
) -> None:
    fitted = FIT.model_copy(update={"epochs": 6, "learning_rate": 3e-3, "batch_size": 8})
    config = FinetuneConfig(
        fit=fitted.model_copy(update={"chunk_size": 8}), findings_share=0.5, augmentation="none"
    )

    candidate = tune(manifest, start, tmp_path, config)

    table = read_predictions(tmp_path / "predictions.csv")
    assert table.labels.sum() == 8
    assert set(table.columns) == {"sex", "age", "dataset", "findings"}
    assert np.mean(table.scores[table.labels]) > np.mean(table.scores[~table.labels]) + 1
    assert table.probabilities is None
    assert "calibrator" in candidate.missing()
    assert candidate.training["data"]["start_sha256"] == start.sha256
    findings = load_file(tmp_path / "findings.safetensors")
    assert findings["weight"].shape == (2, ENCODER.widths[3])
    assert not list(tmp_path.rglob("*.pt"))


def test_a_folder_begun_with_other_choices_is_refused_by_name(
    manifest: Manifest, start: Bundle, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"fit": FIT.model_copy(update={"epochs": 1})})
    tune(manifest, start, tmp_path, config)
    other = config.model_copy(update={"drop_path": 0.2})

    with pytest.raises(ConfigurationError, match=r"config.drop_path = 0.1, now it is 0.2"):
        tune(manifest, start, tmp_path, other)


def test_uneven_chunks_and_too_few_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cut evenly"):
        fit_line(tmp_path, Points(), FitConfig(batch_size=8, chunk_size=3))
    with pytest.raises(ConfigurationError, match="fewer than a batch"):
        fit_line(tmp_path, Points(), FitConfig(batch_size=48, chunk_size=12))


def test_a_manifest_without_both_labels_in_val_is_refused(start: Bundle, tmp_path: Path) -> None:
    one_sided = write_blob_manifest(tmp_path / "blobs", train=4, val=1)

    with pytest.raises(TrainingDataError, match="split val needs rows of both labels"):
        tune(one_sided, start, tmp_path / "out")


@pytest.mark.parametrize(
    "encoder", [ENCODER.model_dump(), CompactRegNetSpec(trunk="regnety_002").model_dump()]
)
def test_checkpointed_gradients_are_the_same_gradients(encoder: dict[str, object]) -> None:
    torch.manual_seed(0)
    network = build_network(encoder).eval()
    model = FinetuneModel(network, 0, insight_share=0.4, findings_share=0)
    inputs = torch.randn(2, 1, 64, 64), torch.tensor([0.0, 1.0]), torch.zeros(2, 0)
    gradients = []
    for switched in (False, True):
        if switched:
            assert checkpoint_gradients(network) > 0
            network.train()
            for module in network.modules():
                module.train(not isinstance(module, nn.BatchNorm2d))
        model.zero_grad()
        model(*inputs, torch.tensor(1.0), torch.tensor(0.0)).backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])

    assert len(gradients[0]) == len(list(model.parameters()))
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again, rtol=1e-5, atol=1e-7)


def test_the_learning_rate_warms_up_and_falls_to_a_hundredth() -> None:
    shares = [warm_cosine(step, 100, 5) for step in range(101)]

    assert shares[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert shares[100] == pytest.approx(0.01)
    assert all(a >= b for a, b in itertools.pairwise(shares[5:]))


def test_a_checkpoint_caught_between_its_two_renames_is_found_again(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    write_checkpoint(tmp_path / "run", {"model": model}, optimizer, Progress(7, 84))
    (tmp_path / "run").rename(tmp_path / "run.old")

    fresh = nn.Linear(2, 1)
    again = torch.optim.AdamW(fresh.parameters())
    progress = read_checkpoint(tmp_path / "run", {"model": fresh}, again)

    assert progress == Progress(7, 84)
    assert torch.equal(fresh.weight, model.weight)
    first, second = optimizer.state_dict()["state"][0], again.state_dict()["state"][0]
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_insight_trained_on_cached_features_finds_the_squares_and_resumes_to_the_same_bits(
    manifest: Manifest, start: Bundle, tmp_path: Path
) -> None:
    store = encode_manifest(manifest, start, tmp_path / "features", "cpu")
    assert store is not None
    fitted = FitConfig(epochs=8, batch_size=12, chunk_size=6, learning_rate=3e-3, weight_decay=0.05)
    config = InsightConfig(fit=fitted)

    def stop(line: str) -> None:
        if line.startswith("epoch 3"):
            raise KeyboardInterrupt

    def run(name: str) -> dict[str, Tensor]:
        train_insight(store, start, tmp_path / name, config, device=CPU, processes=ALONE)
        return load_file(read_bundle(tmp_path / name / "bundle").weights)

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        train_insight(
            store, start, tmp_path / "stopped", config, device=CPU, processes=ALONE, say=stop
        )
    resumed = run("stopped")

    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    before = load_file(start.weights)
    changed = {name.split(".")[0] for name in whole if not torch.equal(whole[name], before[name])}
    assert changed == {"insight", "triage"}
    found = read_predictions(tmp_path / "whole" / "insight_predictions.csv")
    assert np.mean(found.scores[found.labels]) > np.mean(found.scores[~found.labels])


def test_two_processes_under_torchrun_end_as_one_process_does(
    manifest: Manifest, start: Bundle, tmp_path: Path
) -> None:
    fitted = FitConfig(epochs=2, batch_size=8, chunk_size=4, learning_rate=1e-3)
    config = FinetuneConfig(fit=fitted, drop_path=0.1, findings_share=0.5)
    tune(manifest, start, tmp_path / "one", config)
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *("-m", "firstread", "train", "finetune", manifest.path, "--bundle", start.folder),
        *("--out", tmp_path / "two", "--epochs", "2", "--batch", "8", "--chunk", "4"),
        *("--lr", "1e-3", "--drop-path", "0.1", "--findings", "0.5", "--device", "cpu"),
    ]

    done = subprocess.run(
        list(map(str, command)),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    one, two = (
        load_file(tmp_path / run / "checkpoint" / "average.safetensors") for run in ("one", "two")
    )
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=2e-5)
    begun = load_file(start.weights)["triage.1.weight"].float()
    assert not torch.allclose(one["network.triage.1.weight"], begun, atol=1e-3)
    assert (tmp_path / "one" / "choices.json").read_text() == (
        tmp_path / "two" / "choices.json"
    ).read_text()
