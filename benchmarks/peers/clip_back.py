"""Run clip-retrieval's `clip back` with a model folder of open_clip, in the peer's environment.

    clip_back.py INDEX MODEL PORT

clip back itself cannot load a model from a folder. Packages that only other models need are
replaced if they are missing.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

OTHER_MODELS = ("sentence_transformers", "wandb", "multilingual_clip", "transformers")


def main(index: str, model: str, port: int) -> None:
    for name in OTHER_MODELS:
        try:
            __import__(name)
        except ImportError:
            sys.modules[name] = MagicMock()
    import all_clip
    import open_clip
    from clip_retrieval import clip_back

    def load_clip(*_arguments: Any, **_options: Any) -> tuple[Any, Any, Any]:
        network, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{model}")
        return network.eval(), preprocess, open_clip.get_tokenizer(f"local-dir:{model}")

    all_clip.load_clip = load_clip
    os.chdir(model)  # its vocabulary has a relative path
    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder) / "indices.json"
        paths.write_text(json.dumps({"x": index}))
        clip_back(
            indices_paths=str(paths),
            port=port,
            enable_mclip_option=False,
            provide_aesthetic_embeddings=False,
            columns_to_return=["image_path", "caption"],
        )


if __name__ == "__main__":
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
