"""All settings with their defaults; an unknown key is an error.

The text under each setting is its documentation: ``docs/settings.md`` is generated from it
(``make docs``). The first paragraph describes the setting, and the second one states when to change
it.
"""

from mmindex.core.config.corpus import CrawlConfig, LimitsConfig, SourceConfig
from mmindex.core.config.fetching import FetchConfig
from mmindex.core.config.load import load_config
from mmindex.core.config.tree import DEFAULT_SCENES, Config, RunConfig, check_type, setting_names
from mmindex.core.config.vectors import (
    EncodeConfig,
    EvaluateConfig,
    IndexConfig,
    ModelConfig,
    SearchConfig,
)

__all__ = [
    "DEFAULT_SCENES",
    "Config",
    "CrawlConfig",
    "EncodeConfig",
    "EvaluateConfig",
    "FetchConfig",
    "IndexConfig",
    "LimitsConfig",
    "ModelConfig",
    "RunConfig",
    "SearchConfig",
    "SourceConfig",
    "check_type",
    "load_config",
    "setting_names",
]
