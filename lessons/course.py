"""The eleven lessons, in order: the one table that README, badges, progress strip and command line read."""

from dataclasses import dataclass
from importlib import metadata

from .errors import SettingError


@dataclass(frozen=True)
class Lesson:
    """One step of the path: `number` 1 to 11, `slug` as in the file name, the public data set it trains on."""

    number: int
    slug: str
    title: str
    promise: str
    data: str
    short_path: bool = False

    @property
    def stem(self) -> str:
        """File name of the notebook without its ending, such as `01_resnet`."""
        return f"{self.number:02d}_{self.slug}"


LESSONS = (
    Lesson(
        1,
        "resnet",
        "ResNet",
        "Why deeper plain networks train worse, and how adding the input back cures it.",
        "cifar10",
    ),
    Lesson(
        2,
        "vit",
        "ViT",
        "A picture becomes a sequence of patches, read by the encoder that reads text.",
        "cifar10",
        True,
    ),
    Lesson(
        3, "mae", "MAE", "Hide three quarters of a picture, learn to paint it back, and keep the encoder.", "cifar10"
    ),
    Lesson(4, "contrastive", "Contrastive learning", "Turn “which one belongs to me?” into a loss.", "cifar10", True),
    Lesson(
        5,
        "simclr",
        "SimCLR",
        "Two views, one network, a small head that is thrown away; and why each matters.",
        "cifar10",
    ),
    Lesson(6, "dino", "DINO", "A network teaches itself by agreeing with its own slow average.", "cifar10"),
    Lesson(
        7, "dinov2", "DINOv2", "What turns a method into a backbone: more terms, curated data, distillation.", "cifar10"
    ),
    Lesson(
        8,
        "clip",
        "CLIP",
        "A picture tower and a text tower, until each picture finds its own caption.",
        "captions",
        True,
    ),
    Lesson(
        9,
        "multimodal_embeddings",
        "Multimodal embeddings",
        "What a shared space is good for, and how sound joins it.",
        "captions",
        True,
    ),
    Lesson(
        10,
        "zero_shot",
        "Zero-shot transfer",
        "Class names become a classifier; what that buys, and where it stops.",
        "captions",
        True,
    ),
    Lesson(
        11,
        "early_fusion",
        "Early fusion",
        "Patches and words in one sequence, attending to each other from the first layer.",
        "captions",
        True,
    ),
)


def lesson(number: int | str) -> Lesson:
    """The lesson with this number (1 to 11, or "01" to "11"); SettingError for anything else."""
    try:
        position = int(number)
    except (TypeError, ValueError):
        position = 0
    if not 1 <= position <= len(LESSONS):
        raise SettingError(f"There is no lesson {number!r}. The lessons are numbered 1 to {len(LESSONS)}.")
    return LESSONS[position - 1]


def repository() -> str:
    """Address of the repository, from `[project.urls]` in pyproject.toml: the one place where it stands."""
    for entry in metadata.metadata("vision-to-language").get_all("Project-URL") or ():
        label, _, address = entry.partition(", ")
        if label == "Repository":
            return address
    raise SettingError("The installed package names no repository. Run `make setup` again.")
