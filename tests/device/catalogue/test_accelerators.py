"""Known accelerators: figures that fit each other, and names as drivers and people write them."""

import re

import pytest

from volano.device.catalogue.accelerators import DEVICES, _plain, find_device, other_variants
from volano.errors import UsageError

# As drivers report them (torch's get_device_name).
REPORTED = {
    "Tesla V100-SXM2-16GB": "V100 SXM2 16GB",
    "Tesla V100-SXM2-32GB": "V100 SXM2 32GB",
    "Tesla V100-PCIE-16GB": "V100 PCIe 16GB",
    "Tesla T4": "T4",
    "NVIDIA A10": "A10",
    "NVIDIA A10G": "A10G",
    "NVIDIA L4": "L4",
    "NVIDIA L40S": "L40S",
    "NVIDIA A100-SXM4-40GB": "A100 SXM 40GB",
    "NVIDIA A100-SXM4-80GB": "A100 SXM 80GB",
    "NVIDIA A100-PCIE-40GB": "A100 PCIe 40GB",
    "NVIDIA A100 80GB PCIe": "A100 PCIe 80GB",
    "NVIDIA H100 80GB HBM3": "H100 SXM 80GB",
    "NVIDIA H100 PCIe": "H100 PCIe 80GB",
    "NVIDIA H100 NVL": "H100 NVL 94GB",
    "NVIDIA H200": "H200 SXM 141GB",
    "NVIDIA B200": "B200 SXM 180GB",
    "NVIDIA GeForce RTX 3090": "RTX 3090",
    "NVIDIA GeForce RTX 4090": "RTX 4090",
    "NVIDIA GeForce RTX 5090": "RTX 5090",
    "NVIDIA RTX A6000": "RTX A6000",
    "NVIDIA RTX 6000 Ada Generation": "RTX 6000 Ada",
    "AMD Instinct MI250X": "MI250X die 64GB",
    "AMD Instinct MI300X OAM": "MI300X",
    "AMD Instinct MI325X": "MI325X",
    "Intel(R) Data Center GPU Max 1550": "Max 1550 stack 64GB",
    "NVIDIA GeForce RTX 3060": "RTX 3060 12GB",
    "NVIDIA GeForce RTX 3070": "RTX 3070",
    "NVIDIA GeForce RTX 4060 Ti": "RTX 4060 Ti 8GB",
    "NVIDIA GeForce RTX 4070 SUPER": "RTX 4070 Super",
    "NVIDIA GeForce RTX 5070 Ti": "RTX 5070 Ti",
    "NVIDIA GeForce RTX 5080": "RTX 5080",
    "NVIDIA RTX PRO 6000 Blackwell Workstation Edition": "RTX PRO 6000 Blackwell",
    "NVIDIA L40": "L40",
    "NVIDIA A30": "A30",
    "NVIDIA A40": "A40",
    "NVIDIA H200 NVL": "H200 NVL 141GB",
    "NVIDIA GH200 480GB": "GH200 96GB",
    "NVIDIA GH200 144GB HBM3e": "GH200 144GB",
    "NVIDIA B300 SXM6 AC": "B300 SXM 270GB",
    "AMD Instinct MI350X": "MI350X",
    "AMD Instinct MI355X": "MI355X",
    "Intel(R) Arc(TM) A770 Graphics": "Arc A770 16GB",
    "Intel(R) Arc(TM) B580 Graphics": "Arc B580 12GB",
    "Apple M2 Ultra": "Apple M2 Ultra 64GB",
}
TYPED = {
    "H100": "H100 SXM 80GB",
    "H100 80GB": "H100 SXM 80GB",
    "h100-sxm": "H100 SXM 80GB",
    "H100 80GiB": "H100 SXM 80GB",
    "a100": "A100 SXM 80GB",
    "a100_40gb": "A100 SXM 40GB",
    "A100 80 GB": "A100 SXM 80GB",
    "rtx4090": "RTX 4090",
    "4090": "RTX 4090",
    "a6000": "RTX A6000",
    "mi300x": "MI300X",
}


@pytest.mark.parametrize(("text", "name"), (REPORTED | TYPED).items())
def test_names_are_found(text, name):
    assert find_device(text).name == name


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)
def test_a_devices_own_name_finds_it(device):
    assert find_device(device.name) is device


@pytest.mark.parametrize("text", [*REPORTED, *TYPED])
def test_a_name_means_one_entry(text):
    assert sum(re.fullmatch(device.pattern, _plain(text)) is not None for device in DEVICES) == 1


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("H1000", "H100"),
        ("a100_60gb", "A100"),
        ("RTX 3090 Ti", "RTX 3090"),
        ("MI300", "MI300X"),
        ("L41", "L40"),
    ],
)
def test_an_unknown_name_gives_the_nearest(text, nearest):
    with pytest.raises(
        UsageError, match=rf"must be in the catalogue; got '{text}'\. Nearest: .*{nearest}"
    ):
        find_device(text)


def test_an_empty_name_is_unknown():
    with pytest.raises(UsageError, match="Nearest"):
        find_device("NVIDIA")


def test_a_short_name_says_what_else_it_could_mean():
    assert set(other_variants("H100")) == {"H100 PCIe 80GB", "H100 NVL 94GB"}
    assert set(other_variants("H200")) == {"H200 NVL 141GB"}
    assert other_variants("A100 PCIe 80GB") == ()
    assert other_variants("NVIDIA RTX 6000 Ada Generation") == ()


def test_dense_figures_not_sparse_ones():
    # Half-precision matrix units do twice the work of tf32 ones, on every device that has both
    # (architecture papers).
    for device in DEVICES:
        if "tf32" in device.flops:
            assert device.flops["bf16"] == pytest.approx(2 * device.flops["tf32"], rel=0.02), (
                device.name
            )
        if "bf16" in device.flops:
            assert device.flops["fp16"] == device.flops["bf16"], device.name
    # Cores x clock x operations of one cycle, dense: 432 tensor cores of 512 at 1410 MHz; 528 of
    # 1024 at 1830 MHz (NVIDIA's A100 and H100 whitepapers, table of peak rates).
    assert find_device("A100").flops["bf16"] == pytest.approx(432 * 512 * 1410e6, rel=0.01)
    assert find_device("H100").flops["bf16"] == pytest.approx(528 * 1024 * 1830e6, rel=0.01)
    assert find_device("MI300X").flops["bf16"] == pytest.approx(304 * 2048 * 2100e6, rel=0.01)


def test_figures_are_those_of_a_machine():
    for device in DEVICES:
        assert device.flops["fp32"] <= max(device.flops.values())
        # From 2017's boards to 2025's: operations that memory feeds per byte, and the order of
        # links.
        assert 20 < max(device.flops.values()) / device.memory_rate < 500, device.name
        assert (
            device.host_link
            < (device.interconnect or device.memory_rate)
            < device.memory_rate * 1.01
        )
        assert 7 * 2**30 < device.memory <= 288 * 2**30
        assert device.source


def test_bandwidth_is_width_times_pins():
    # Bus width in bits x rate of a pin: 384 x 19.5, 384 x 21 and 512 x 28 Gbit/s.
    assert find_device("3090").memory_rate == pytest.approx(384 * 19.5e9 / 8, rel=0.01)
    assert find_device("4090").memory_rate == pytest.approx(384 * 21e9 / 8, rel=0.01)
    assert find_device("5090").memory_rate == pytest.approx(512 * 28e9 / 8, rel=0.01)


@pytest.mark.parametrize(
    ("name", "reported"),
    [("T4", 14.6), ("RTX 4090", 23.6), ("H100 SXM 80GB", 79.1), ("H200", 139.7)],
)
def test_the_memory_is_what_torch_reports_at_most(name, reported):
    """GiB of ``total_memory``."""
    assert 0.95 * reported < find_device(name).memory / 2**30 <= reported
