"""``train``: contrastive training and fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Sources = Annotated[
    list[str] | None,
    typer.Option(
        "--source",
        metavar="KIND:WHERE[#SPLIT]",
        help="What to train on; the kinds of `mmindex build`. May be repeated.",
    ),
]
Validation = Annotated[
    list[str] | None,
    typer.Option(
        "--validate",
        metavar="KIND:WHERE[#SPLIT]",
        help="What to measure recall on. [default: 1,000 images, or a tenth, held out of --source]",
    ),
]
Out = Annotated[
    Path, typer.Option("--out", help="Folder for the result: config, weights, log, plot.")
]
Model = Annotated[
    str | None,
    typer.Option(
        help="Start from: open_clip model name, `embedded`, local-dir:PATH, hf-hub:ORG/REPO."
    ),
]
Pretrained = Annotated[
    str | None,
    typer.Option(help="Its weights: a tag, a .safetensors path, or `none` to train from scratch."),
]
Vocabulary = Annotated[
    int, typer.Option(min=0, help="Learn so many byte-pair merges from the captions. 0: keep.")
]
Steps = Annotated[int, typer.Option(min=1, help="Optimizer steps in all.")]
BatchSize = Annotated[int, typer.Option(min=2, help="Images a step; more are better negatives.")]
PerImage = Annotated[
    int, typer.Option(min=1, help="Captions of each image used in a step, each set by itself.")
]
Rate = Annotated[
    float, typer.Option(help="Peak learning rate; to fine-tune, 1e-5 to 5e-5. [default: 1e-3]")
]
Warmup = Annotated[int, typer.Option(min=0, help="Steps of linear warm-up.")]
Decay = Annotated[float, typer.Option(min=0, help="AdamW's weight decay.")]
Ema = Annotated[
    float, typer.Option(min=0, max=1, help="Decay of the mean of weights that is saved; 0: none.")
]
Alike = Annotated[
    int,
    typer.Option(min=0, help="Similar images that share a batch, as hard negatives; 0: by lot."),
]
Crop = Annotated[
    float, typer.Option(min=0, max=1, help="Least share of a picture that a random crop keeps.")
]
Every = Annotated[int, typer.Option(min=1, help="Steps between checkpoints, and validations.")]
Cache = Annotated[
    bool, typer.Option("--cache/--no-cache", help="Decode once and keep the pixels on disk.")
]
Workers = Annotated[
    int | None, typer.Option(min=0, help="Decoding processes. [default: one a core]")
]


def train(
    out: Out,
    source: Sources = None,
    validate: Validation = None,
    model: Model = None,
    pretrained: Pretrained = None,
    vocabulary: Vocabulary = 0,
    steps: Steps = 2_000,
    batch_size: BatchSize = 256,
    captions_per_image: PerImage = 1,
    learning_rate: Rate = 1e-3,
    warmup_steps: Warmup = 200,
    weight_decay: Decay = 0.1,
    ema_decay: Ema = 0.0,
    alike: Alike = 0,
    crop_scale: Crop = 0.9,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, order, captions, crops.")] = 0,
    lock_image: Annotated[bool, typer.Option("--lock-image", help="Keep the image tower.")] = False,
    lock_text: Annotated[bool, typer.Option("--lock-text", help="Keep the text tower.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
    workers: Workers = None,
    every: Every = 250,
    cache: Cache = True,
    half: Annotated[bool, typer.Option("--half", help="Save float16 weights.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the model that --out holds.")
    ] = False,
) -> None:
    """Train an open_clip model on captioned images, from scratch or from trained weights.

    A run that was killed goes on from its last checkpoint when the same command is given again.

    Example: mmindex train --source coco:~/coco#train2017 --learning-rate 2e-5 --out my-clip
    """
    from mmindex.core.system import usable_cores
    from mmindex.models.resolve import resolve_model
    from mmindex.sources.spec import only_scenes
    from mmindex.train.recipe import Recipe, run_recipe
    from mmindex.train.settings import TrainSettings, check_precision
    from mmindex.train.train import TrainOutput

    settings = TrainSettings(
        steps=steps,
        batch_size=batch_size,
        captions_per_image=captions_per_image,
        learning_rate=learning_rate,
        warmup_steps=warmup_steps,
        weight_decay=weight_decay,
        ema_decay=ema_decay,
        hard_negatives=alike,
        crop_scale=crop_scale,
        seed=seed,
        lock_image=lock_image,
        lock_text=lock_text,
        precision=check_precision(precision),
        device=device,
        workers=usable_cores() if workers is None else workers,
        checkpoint_every=every,
        validate_every=every,
    )
    request = resolve_model(model, pretrained, scenes_only=only_scenes(source or []))
    output = TrainOutput(out.absolute(), half=half, cache_pixels=cache, overwrite=overwrite)
    report = run_recipe(Recipe(source or [], validate or [], request, vocabulary, settings, output))
    recall = "  ".join(f"{key} {value:.1f}" for key, value in report.recall.items())
    typer.echo(f"{out}  {report.parameters:,} parameters  {report.seconds:.0f} s")
    typer.echo(recall)
