"""Clusters as a person names them."""

import pytest

from volano.errors import UsageError
from volano.planner.cluster.cluster_spec import ClusterSpec, names_cluster


@pytest.mark.parametrize(
    ("text", "nodes", "device", "count", "per_node", "machine"),
    [
        ("H100 x 64", None, "H100 SXM 80GB", 64, 8, "DGX H100"),
        ("H100 x 64", 16, "H100 SXM 80GB", 64, 4, "DGX H100"),
        ("a100_40gb x16, p4d.24xlarge", None, "A100 SXM 40GB", 16, 8, "p4d.24xlarge"),
        ("RTX 4090 x 2", None, "RTX 4090", 2, 2, "a host with cards"),
        ("MI250X x 10_000", None, "MI250X die 64GB", 10_000, 8, "Frontier node"),
        ("H200 x 1", None, "H200 SXM 141GB", 1, 1, "DGX H200"),
    ],
)
def test_a_cluster_is_read(text, nodes, device, count, per_node, machine):
    assert names_cluster(text)
    spec = ClusterSpec.parse(text, nodes)
    assert (spec.device.name, spec.world_size, spec.per_node) == (device, count, per_node)
    assert spec.machine.name == machine


@pytest.mark.parametrize("count", ["6_", "9" * 5000, "1__0"])
def test_what_is_no_number_names_no_cluster(count):
    assert not names_cluster(f"H100 x {count}")
    assert names_cluster("H100 x 1_000")


def test_a_device_alone_is_no_cluster():
    for text in ("H100", "RTX 4090", "Max 1550", "MI250X", "H100 NVL"):
        assert not names_cluster(text)


@pytest.mark.parametrize(
    ("text", "nodes", "message"),
    [
        ("H100 x 0", None, "1 to 10,000 devices; got 0"),
        ("H100 x 10001", None, "1 to 10,000 devices"),
        ("H100 x 12", None, "must fill machines of 8"),
        ("H100 x 12", 5, "`nodes` must be a number of machines that divides"),
        ("H1000 x 8", None, "must be in the catalogue"),
        ("H100 x 8, p5", None, "A machine must be in the catalogue"),
        ("64 H100", None, "DEVICE x COUNT"),
    ],
)
def test_what_cannot_be(text, nodes, message):
    with pytest.raises(UsageError, match=message):
        ClusterSpec.parse(text, nodes)


def test_half_a_machine_has_half_its_network():
    whole = ClusterSpec.parse("H100 x 64").layout(64)
    half = ClusterSpec.parse("H100 x 64", 16).layout(64)
    assert half.network == whole.network / 2
    assert (half.num_nodes, whole.num_nodes) == (16, 8)
    assert whole.interconnect == 450e9
    # Cards reach each other through the host.
    assert ClusterSpec.parse("RTX 4090 x 2").layout(2).interconnect == 31.5e9
