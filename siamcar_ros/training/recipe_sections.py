"""The sections of a recipe, their defaults and limits; `augment` is in augment.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, TypeAlias

from siamcar_ros.options import Choice, Range

from .augment import NotNegative, Probability
from .losses import BOX_LOSSES, QUALITIES
from .targets import POSITIVE_RULES

Count: TypeAlias = Annotated[int, Range(1)]
Positive: TypeAlias = Annotated[float, Range(0, above=True)]


@dataclass(frozen=True)
class DataRecipe:
    """The training pairs.

    Attributes:
        sets: options of each data set by name; see
            :func:`~siamcar_ros.data.build_mixture`.
        pairs_per_epoch: length of an epoch.
        max_fault_share: the run fails if more than this share of the draws, from the 1,000th on,
            met a missing or broken file.
    """

    sets: dict[str, Any] = field(default_factory=dict)
    pairs_per_epoch: Count = 64_000
    max_fault_share: Probability = 0.01


@dataclass(frozen=True)
class LossRecipe:
    """The losses; :func:`~siamcar_ros.training.siamcar_loss` explains all but the weights.

    Attributes:
        cls, reg, cen: weights of classification, regression and centerness (paper: 1, 3, 1).
    """

    cls: NotNegative = 1.0
    reg: NotNegative = 3.0
    cen: NotNegative = 1.0
    positives: Annotated[str, Choice(*POSITIVE_RULES)] = "center"
    balanced: bool = True
    centerness_weighted: bool = True
    box: Annotated[str, Choice(*BOX_LOSSES)] = "iou"
    oversize: NotNegative = 0.0
    quality: Annotated[str, Choice(*QUALITIES)] = "centerness"


@dataclass(frozen=True)
class TeacherRecipe:
    """A trained network from whose maps the new one learns, besides the true boxes.

    Attributes:
        network: its name; the cells of both networks must coincide.
        weights: its file; None for no teacher.
        weight: of its term in the loss, whose parts have the weights of ``loss``.
    """

    network: str = "resnet50"
    weights: str | None = None
    weight: NotNegative = 1.0


@dataclass(frozen=True)
class OptimizerRecipe:
    """The optimizer.

    Attributes:
        kind: "sgd" or "adamw".
        lr: the rate that the schedule scales.
        momentum: of SGD.
        betas: of AdamW.
        weight_decay: of weights, and with ``decay_vectors`` of biases and norms.
        clip: the largest gradient norm; 0 for no limit. A step whose gradient is not finite is
            left out.
        give_up_after: the run fails after so many steps in a row without a finite gradient.
    """

    kind: Annotated[str, Choice("sgd", "adamw")] = "sgd"
    lr: Positive = 0.005
    momentum: Probability = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: NotNegative = 1e-4
    decay_vectors: bool = True
    clip: NotNegative = 10.0
    give_up_after: Count = 20


@dataclass(frozen=True)
class ScheduleRecipe:
    """The rate over time, as a factor of ``optimizer.lr``.

    Attributes:
        kind: "log" is the authors': constant within an epoch, rising geometrically from
            ``warmup_from`` over the warm-up, then falling geometrically to ``final``. "cosine"
            rises linearly from 0 over the warm-up, stays, and falls by a cosine to ``final`` over
            the last ``decay_epochs``.
        warmup_epochs: length of the warm-up, a fraction allowed for "cosine".
        decay_epochs: length of the cosine's fall; None, and at most, all that follows the warm-up.
    """

    kind: Annotated[str, Choice("log", "cosine")] = "log"
    warmup_epochs: NotNegative = 5
    warmup_from: Probability = 0.2
    final: NotNegative = 0.1
    decay_epochs: NotNegative | None = None


@dataclass(frozen=True)
class BackboneRecipe:
    """How the backbone is trained.

    Attributes:
        initial: weights to start from, of the backbone alone (ImageNet) or of a whole network.
        frozen_epochs: epochs during which the backbone and its statistics stay as they are.
        train: the parts that are trained afterwards (all if empty); the others stay frozen.
        lr_factor: its learning rate relative to the rest.
    """

    initial: str | None = None
    frozen_epochs: Annotated[int, Range(0)] = 0
    train: tuple[str, ...] = ()
    lr_factor: NotNegative = 1.0


@dataclass(frozen=True)
class ComputeRecipe:
    """Devices and arithmetic.

    Attributes:
        device: "auto", "cpu", "cuda" or "cuda:N"; under torchrun each process takes its own GPU.
        precision: "fp32", "bf16" or "fp16" (autocast; the weights stay fp32).
        channels_last: memory format of the convolutions.
        compile: pass the network through ``torch.compile``.
        correlation: "direct" (grouped convolution), "fft", or "auto": "fft" on a CPU, where its
            backward pass is faster, in bf16 by far.
        batchnorm: "train", "sync" (statistics over all GPUs) or "frozen".
        augment_on_device: change light, sharpness, compression and noise in batches on the training
            device instead of image by image in the workers.
        workers: loader processes of each training process.
        threads: CPU threads of the training process; None leaves PyTorch's choice.
    """

    device: str = "auto"
    precision: Annotated[str, Choice("fp32", "bf16", "fp16")] = "fp32"
    channels_last: bool = True
    compile: bool = False
    correlation: Annotated[str, Choice("auto", "direct", "fft")] = "auto"
    batchnorm: Annotated[str, Choice("train", "sync", "frozen")] = "train"
    augment_on_device: bool = False
    workers: Annotated[int, Range(0)] = 2
    threads: Count | None = None


@dataclass(frozen=True)
class LogRecipe:
    """What is written during a run; intervals in steps.

    Attributes:
        every: losses, rate and speed.
        images_every: sample pairs with true and predicted boxes.
        checkpoint_every: the checkpoint that a killed run resumes from; the last is always written.
        keep_every_epochs: interval in epochs at which the (averaged) weights are kept in a file.
        tensorboard: write event files.
    """

    every: Count = 50
    images_every: Count = 2000
    checkpoint_every: Count = 500
    keep_every_epochs: Count = 5
    tensorboard: bool = True


@dataclass(frozen=True)
class ValidationRecipe:
    """Validation by tracking.

    Attributes:
        sequences: a folder of sequences; None for no validation.
        frames: the largest number of frames of each; None for all.
        every_epochs: interval in epochs.
    """

    sequences: str | None = None
    frames: Annotated[int, Range(2)] | None = None
    every_epochs: Positive = 1
