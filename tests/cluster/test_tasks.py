"""The number of units on each node, and the resources of each unit."""

from __future__ import annotations

import pytest

from mmindex.cluster.tasks import Need, Node
from mmindex.core.config import Config
from mmindex.core.errors import NetworkError
from mmindex.encode.cluster import what_a_unit_needs


def node(cpus: int, gpus: int = 0) -> Node:
    return Node("id", f"host/{cpus}-{gpus}", cpus, gpus)


@pytest.mark.parametrize(
    ("cpus", "gpus", "need", "fit"),
    [
        (8, 0, Need(4), 2),
        (7, 0, Need(4), 1),
        (3, 0, Need(4), 0),
        (0, 0, Need(1), 0),
        (16, 4, Need(4, 1), 4),
        (16, 4, Need(8, 1), 2),
        (16, 0, Need(4, 1), 0),
    ],
)
def test_as_many_tasks_fit_as_the_scarcest_resource_allows(
    cpus: int, gpus: int, need: Need, fit: int
) -> None:
    assert node(cpus, gpus).takes(need) == fit


@pytest.mark.parametrize(
    ("nodes", "encode", "need", "device"),
    [
        ([node(1)], {}, Need(1), "cpu"),
        ([node(64), node(2)], {}, Need(4), "cpu"),
        ([node(64)], {"cores": 16}, Need(16), "cpu"),
        ([node(4), node(32, 4)], {}, Need(8, 1), "cuda"),
        ([node(32, 4), node(12, 2)], {}, Need(6, 1), "cuda"),
        ([node(32, 4)], {"device": "cpu"}, Need(4), "cpu"),
        ([node(32, 4)], {"device": "cuda:0", "cores": 2}, Need(2, 1), "cuda"),
    ],
)
def test_a_unit_gets_a_gpu_where_there_are_any_or_some_cores(
    nodes: list[Node], encode: dict[str, object], need: Need, device: str
) -> None:
    config = Config.model_validate({"encode": encode})
    assert what_a_unit_needs(config, nodes) == (need, device)


@pytest.mark.parametrize(
    ("nodes", "encode"),
    [
        ([], {}),
        ([node(0)], {}),
        ([node(8)], {"cores": 9}),
        ([node(8)], {"device": "cuda"}),
        ([node(0, 1)], {}),
    ],
)
def test_without_a_node_for_a_unit_it_is_69(nodes: list[Node], encode: dict[str, object]) -> None:
    with pytest.raises(NetworkError, match="no node of the cluster") as caught:
        what_a_unit_needs(Config.model_validate({"encode": encode}), nodes)
    assert caught.value.exit_code == 69
