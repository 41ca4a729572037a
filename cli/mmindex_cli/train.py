"""``train``: contrastive training and fine-tuning, and decoders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmindex.core.errors import UsageError
from mmindex.core.model_names import EMBEDDED
from mmindex_cli.options import Setting, takes_settings

if TYPE_CHECKING:
    from mmindex.models.resolve import ModelRequest

SourcesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--source",
        metavar="KIND:PLACE[#SPLIT]",
        help="Source to train on, as for `mmindex build`. You can repeat this option.",
    ),
]
ValidateOption = Annotated[
    list[str] | None,
    typer.Option(
        "--validate",
        metavar="KIND:PLACE[#SPLIT]",
        help="Source to measure recall on; its images are left out of training. "
        "[default: a tenth of --source, at most 1,000 images]",
    ),
]
OutOption = Annotated[
    Path, typer.Option("--out", help="Folder for the config, weights, log and plot.")
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        help="Model to start from: an open_clip model name, `embedded`, local-dir:PATH or "
        "hf-hub:ORG/REPO."
    ),
]
PretrainedOption = Annotated[
    str | None,
    typer.Option(help="Weights to start from: a tag, a file, or `none` to train from scratch."),
]
VocabularyOption = Annotated[
    int,
    typer.Option(
        min=0, help="Number of byte-pair merges to learn from the captions; 0 learns none."
    ),
]
CacheOption = Annotated[
    bool,
    typer.Option("--cache/--no-cache", help="Decode the images once and keep the pixels on disk."),
]
HalfOption = Annotated[bool, typer.Option("--half", help="Save float16 weights.")]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace the model in the --out folder.")
]
DecoderOption = Annotated[
    bool,
    typer.Option(
        "--decoder",
        help="Train a decoder for `ask` and `caption --generate` on the ground truth of scenes.",
    ),
]
_OF_DECODERS = (
    *("steps", "batch_size", "learning_rate", "warmup_steps", "weight_decay", "seed", "device"),
    *("precision", "checkpoint_every", "validate_every"),
)
_SETTINGS = (
    Setting("train.steps", "Number of optimizer steps."),
    Setting("train.batch_size", "Images per step. Larger batches contain more negatives."),
    Setting("train.captions_per_image", "Captions per image in a step, each with its own loss."),
    Setting("train.learning_rate", "Peak learning rate. Use 1e-5 to 5e-5 to fine-tune."),
    Setting("train.warmup_steps", "Number of linear warm-up steps."),
    Setting("train.weight_decay", "Weight decay of AdamW."),
    Setting("train.ema_decay", "Decay of the moving average of the saved weights; 0 turns it off."),
    Setting("train.hard_negatives", "Number of images with similar captions in a batch; "
            "0 turns it off.",
            "--alike"),
    Setting("train.crop_scale", "Smallest share of an image in a random crop."),
    Setting("train.seed", "Seed for weights, order, captions and crops."),
    Setting("train.lock_image", "Do not train the image tower."),
    Setting("train.lock_text", "Do not train the text tower."),
    Setting("train.device", "auto, cpu, cuda or cuda:N."),
    Setting("train.precision", "Precision of the computation."),
    Setting("train.workers", "Number of processes that decode images. [default: one per core]"),
    Setting("train.checkpoint_every", "Number of steps between checkpoints and validations.",
            "--every"),
)  # fmt: skip


@takes_settings(*_SETTINGS)
def train(
    values: dict[str, Any],
    out: OutOption,
    source: SourcesOption = None,
    validate: ValidateOption = None,
    model: ModelOption = None,
    pretrained: PretrainedOption = None,
    vocabulary: VocabularyOption = 0,
    cache: CacheOption = True,
    half: HalfOption = False,
    overwrite: OverwriteOption = False,
    decoder: DecoderOption = False,
) -> None:
    """Train an open_clip model on captioned images, or a decoder for such a model.

    If a run is interrupted, the same command continues from its last checkpoint.

    Example: mmindex train --source coco:~/coco#train2017 --learning-rate 2e-5 --out my-clip
    """
    from mmindex.core.system import usable_cores
    from mmindex.models.resolve import resolve_model
    from mmindex.train.recipe import Recipe, run_recipe
    from mmindex.train.settings import TrainSettings
    from mmindex.train.train import TrainOutput

    given = {key.removeprefix("train."): value for key, value in values.items()}
    if every := given.get("checkpoint_every"):
        given["validate_every"] = every
    if decoder:
        if vocabulary or half or not cache:
            given["vocabulary, half or no-cache"] = True
        request = resolve_model(model or EMBEDDED, pretrained)
        _train_decoder(source or [], validate or [], request, given, out, overwrite)
        return
    settings = TrainSettings(**{"workers": usable_cores(), **given})
    request = resolve_model(model, pretrained, specs=source or [])
    output = TrainOutput(out.absolute(), half=half, cache_pixels=cache, overwrite=overwrite)
    report = run_recipe(Recipe(source or [], validate or [], request, vocabulary, settings, output))
    typer.echo(f"{out}  {report.parameters:,} parameters  {report.seconds:.0f} s")
    typer.echo("  ".join(f"{key} {value:.1f}" for key, value in report.recall.items()))


def _train_decoder(
    source: list[str],
    validate: list[str],
    request: ModelRequest,
    given: dict[str, Any],
    out: Path,
    overwrite: bool,
) -> None:
    from mmindex.decoder.train import DecoderRecipe, train_decoder
    from mmindex.train.settings import TrainSettings

    if other := sorted(given.keys() - {*_OF_DECODERS}):
        raise UsageError(
            f"a decoder has no setting {', '.join(other)}", "remove it, or remove `decoder`"
        )
    settings = TrainSettings(**given)
    recipe = DecoderRecipe(source, validate, request, settings, out.absolute(), overwrite)
    report = train_decoder(recipe)
    typer.echo(
        f"{out}  {report.parameters:,} parameters  {report.seconds:.0f} s  loss {report.loss:.3f}"
    )
    typer.echo("  ".join(f"{name} {100 * share:.1f}" for name, share in report.accuracy.items()))
