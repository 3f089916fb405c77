"""What the compact network is and how it is trained: every choice of the recipe, phase by phase."""

from dataclasses import asdict, dataclass

from model.encoders.compact import CompactSpec
from model.training.augmentation import Augmentation
from model.training.loop import Stage, TrainingConfig
from model.training.sampling import SHARES, Shares

ENCODER = CompactSpec()
# Gentler than the default: a run with the default ended underfitted, at an AUC of 0.76 on train.
AUGMENTATION = Augmentation(
    rotation_deg=9.0,
    log_scale=0.14,
    log_gamma=0.2,
    window=0.08,
    sharpness=0.6,
    noise=0.03,
    erase=0.15,
)
SECOND_SHARES: Shares = {
    # The first phase has learnt from every source; now four in five are of the honest one.
    ("nih_cxr14", False): 0.38,
    ("nih_cxr14", True): 0.42,
    ("other_adults", False): 0.08,
    ("other_adults", True): 0.04,
    ("children", False): 0.04,
    ("children", True): 0.04,
}


@dataclass(frozen=True)
class Phase:
    """How one phase is trained and what it draws.

    ``disputed`` lets it draw the images whose label text mining and radiologists disagree on.
    """

    config: TrainingConfig
    shares: Shares
    disputed: bool
    augmentation: Augmentation = AUGMENTATION

    def described(self) -> dict[str, object]:
        """Give what the record of a run says beside the configuration."""
        return {
            "shares": {
                f"{group}, {'abnormal' if abnormal else 'normal'}": share
                for (group, abnormal), share in self.shares.items()
            },
            "disputed": self.disputed,
            "augmentation": asdict(self.augmentation),
        }


def first_phase(seed: int) -> Phase:
    """From random weights, small images first, for speed."""
    stages = (
        Stage(size_px=96, samples=60_000),
        Stage(size_px=128, samples=50_000),
        Stage(size_px=192, samples=15_000),
    )
    config = TrainingConfig(
        stages=stages, drop_path=0.05, dropout=0.1, label_smoothing=0.05, seed=seed
    )
    return Phase(config, SHARES, disputed=True)


def second_phase(seed: int) -> Phase:
    """Go on from the first phase's average, at the size that it ended with.

    After the first phase NIH's train cases were told apart no better than val's (AUC 0.83 each,
    disputed images aside): it ended for want of training, not of cases. A quarter of NIH's normals
    of train are disputed, none of those of val and test: their labels taught another question.
    """
    config = TrainingConfig(
        stages=(Stage(size_px=192, samples=32_000),),
        learning_rate=5e-4,
        drop_path=0.05,
        dropout=0.1,
        label_smoothing=0.05,
        bfloat16=True,
        seed=seed,
    )
    return Phase(config, SECOND_SHARES, disputed=False)
