"""The catalogue of accelerators that are known without being here, by what their makers state.

Rates are peaks of *dense* arithmetic. Makers like to print figures with 2:4 sparsity, which are
twice as large and out of training's reach; if a data sheet gives only those, half of the figure
stands here. A rate that a device does not have (bf16 on a V100) is missing from its table.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from volano.errors import UsageError

# Words that people and drivers write around the distinctive part of a name.
_NOISE = re.compile(
    r"nvidia|amd|intel|\((r|tm)\)|tesla|geforce|instinct|radeon|data "
    r"?cent(er|re)|gpu|accelerator|oam"
)
_SEPARATORS = re.compile(r"[\s_\-/,:]+")


@dataclass(frozen=True, kw_only=True)
class KnownDevice:
    """An accelerator, as torch counts them.

    Attributes:
        name: the complete name, which tells variants apart.
        pattern: regular expression that matches a whole name, in lower case, without the maker and
            with single spaces.
        flops: precision (``"fp32"``, ``"tf32"``, ``"bf16"``, ``"fp16"``) -> dense floating-point
            operations per second; fp32 is the rate of ordinary units, or of matrix units if these
            compute in fp32.
        memory_rate: bytes per second between the device and its memory.
        memory: bytes that a program can have, not more than torch reports. Makers' GB are GiB, less
            a sixteenth if GDDR memory stores its error-correcting bits within, less what the driver
            keeps.
        host_link: bytes per second from the host, in one direction.
        interconnect: bytes per second from one device to its neighbours in the machine, in one
            direction; None if they have only the host's link.
        source: title of the maker's document.
        product_share: share of ``flops`` that large matrix products reach in training.
    """

    name: str
    pattern: str
    flops: Mapping[str, float]
    memory_rate: float
    memory: int
    host_link: float
    interconnect: float | None
    source: str
    product_share: float

    @property
    def torch_type(self) -> str:
        """The type of the device as torch writes it; ROCm's devices use CUDA's name there."""
        return {"Intel": "xpu", "Apple": "mps"}.get(self.source.split()[0].rstrip(","), "cuda")


# PCI Express with 16 lanes, one direction, after encoding (PCI-SIG: 8, 16, 32 GT/s per lane).
_PCIE3, _PCIE4, _PCIE5 = 15.75e9, 31.5e9, 63e9
_C2C = 450e9  # between the two chips of a GH200, in one direction
_VOLTA = "NVIDIA Tesla V100 GPU accelerator, data sheet"
_AMPERE = "NVIDIA A100 Tensor Core GPU, data sheet"
_GA102 = "NVIDIA Ampere GA102 GPU architecture, whitepaper"
_ADA = "NVIDIA Ada GPU architecture, whitepaper"
_GA10X = "NVIDIA GeForce RTX 30 family, specifications"
_ADA_CARDS = "NVIDIA GeForce RTX 40 family, specifications"
_BLACKWELL_CARDS = "NVIDIA GeForce RTX 50 family, specifications"
_ARC = "Intel Arc graphics, specifications"
_H200 = "NVIDIA H200 Tensor Core GPU, data sheet"
_HOPPER = "NVIDIA H100 Tensor Core GPU, data sheet and architecture whitepaper"
_BLACKWELL = "NVIDIA RTX Blackwell GPU architecture, whitepaper"
_CDNA3 = "AMD Instinct MI300X and MI325X accelerators, data sheets"
_CDNA4 = "AMD Instinct MI350X and MI355X accelerators, data sheets"
_APPLE = "Apple, announcements of the M1 and M2 families"
# Of the peak, what products reach: fitted on 139 published runs on A100
# (benchmarks/cluster_fit.py). Hopper's power limit lowers its clock: the median model FLOPs
# utilization of the same authors' runs is 40.3 % there and 54.6 % on A100 (llm-foundry,
# scripts/train/benchmarking), of which memory and launches explain the smaller part.
_SHARE, _SHARE_OF_HOPPER = 0.8, 0.64
_POWER_LIMITED = ("H100", "H200", "GH200", "B200", "B300")


def _known(
    name: str,
    pattern: str,
    flops: tuple[float, float | None, float | None, float | None],
    memory: tuple[float, float],
    links: tuple[float, float | None],
    source: str,
) -> KnownDevice:
    """Returns a device of the catalogue; ``flops``: TFLOP/s in fp32, tf32, bf16, fp16; ``memory``:
    GB/s, GiB."""
    rates = zip(("fp32", "tf32", "bf16", "fp16"), flops, strict=True)
    return KnownDevice(
        name=name,
        pattern=pattern,
        flops=MappingProxyType(
            {precision: rate * 1e12 for precision, rate in rates if rate is not None}
        ),
        memory_rate=memory[0] * 1e9,
        memory=round(_VISIBLE * memory[1] * 2**30),
        host_link=links[0],
        interconnect=links[1],
        source=source,
        product_share=_SHARE_OF_HOPPER if name.startswith(_POWER_LIMITED) else _SHARE,
    )


_ECC = 15 / 16
# The share of that which a driver leaves for programs, as torch reports it (total_memory): 14.6 GiB
# of a T4's 15, 23.6 of an RTX 4090's 24, 79.1 of an H100's 80, 139.7 of an H200's 141. The smallest
# share of these.
_VISIBLE = 0.973
# Makers add up both directions of a link; half of that stands here. If a short name could mean
# several devices, the pattern of the commonest matches it.
# fmt: off
DEVICES: tuple[KnownDevice, ...] = (
    _known("V100 SXM2 16GB", r"v100( sxm[23]?)?( 16 ?gb)?", (15.7, None, None, 125), (900, 16),
           (_PCIE3, 150e9), _VOLTA),
    _known("V100 SXM2 32GB", r"v100( sxm[23]?)? 32 ?gb", (15.7, None, None, 125), (900, 32),
           (_PCIE3, 150e9), _VOLTA),
    _known("V100 PCIe 16GB", r"v100 pcie( 16 ?gb)?", (14, None, None, 112), (900, 16),
           (_PCIE3, None), _VOLTA),
    _known("V100 PCIe 32GB", r"v100 pcie 32 ?gb", (14, None, None, 112), (900, 32), (_PCIE3, None),
           _VOLTA),
    _known("T4", r"t4( 16 ?gb)?", (8.1, None, None, 65), (320, 16 * _ECC), (_PCIE3, None),
           "NVIDIA T4, data sheet"),
    _known("A10", r"a10( 24 ?gb)?", (31.2, 62.5, 125, 125), (600, 24 * _ECC), (_PCIE4, None),
           "NVIDIA A10, data sheet"),
    _known("A10G", r"a10g( 24 ?gb)?", (35, 35, 70, 70), (600, 24 * _ECC), (_PCIE4, None),
           "NVIDIA A10G, data sheet"),
    _known("L4", r"l4( 24 ?gb)?", (30.3, 60, 121, 121), (300, 24 * _ECC), (_PCIE4, None),
           "NVIDIA L4, data sheet"),
    _known("L40S", r"l40s( 48 ?gb)?", (91.6, 183, 362, 362), (864, 48 * _ECC), (_PCIE4, None),
           "NVIDIA L40S, data sheet"),
    _known("A100 SXM 40GB", r"a100( sxm4?)? 40 ?gb( sxm4?)?", (19.5, 156, 312, 312), (1555, 40),
           (_PCIE4, 300e9), _AMPERE),
    _known("A100 SXM 80GB", r"a100( sxm4?)?( 80 ?gb)?( sxm4?)?", (19.5, 156, 312, 312), (2039, 80),
           (_PCIE4, 300e9), _AMPERE),
    _known("A100 PCIe 40GB", r"a100 (pcie( 40 ?gb)?|40 ?gb pcie)", (19.5, 156, 312, 312),
           (1555, 40), (_PCIE4, None), _AMPERE),
    _known("A100 PCIe 80GB", r"a100 (pcie 80 ?gb|80 ?gb pcie)", (19.5, 156, 312, 312), (1935, 80),
           (_PCIE4, None), _AMPERE),
    _known("H100 SXM 80GB", r"h100( sxm5?)?( 80 ?gb)?( hbm3)?( sxm5?)?",
           (66.9, 494.7, 989.4, 989.4), (3350, 80), (_PCIE5, 450e9), _HOPPER),
    _known("H100 PCIe 80GB", r"h100 (80 ?gb )?pcie( 80 ?gb)?", (51.2, 378, 756, 756), (2000, 80),
           (_PCIE5, None), _HOPPER),
    _known("H100 NVL 94GB", r"h100 (94 ?gb|nvl( 94 ?gb)?)", (60, 417.5, 835.5, 835.5), (3900, 94),
           (_PCIE5, None), _HOPPER),
    _known("H200 SXM 141GB", r"h200( sxm5?)?( 141 ?gb)?( hbm3e)?", (66.9, 494.7, 989.4, 989.4),
           (4800, 141), (_PCIE5, 450e9), _H200),
    _known("B200 SXM 180GB", r"b200( sxm6?)?( 1[789]\d ?gb)?", (75, 1125, 2250, 2250), (7700, 180),
           (_PCIE5, 900e9), "NVIDIA HGX B200, data sheet"),
    _known("RTX 3090", r"(rtx ?)?3090( 24 ?gb)?", (35.6, 35.6, 71, 71), (936, 24), (_PCIE4, None),
           _GA102),
    _known("RTX A6000", r"(rtx ?)?a6000( 48 ?gb)?", (38.7, 77.4, 154.8, 154.8), (768, 48),
           (_PCIE4, None), _GA102),
    _known("RTX 4090", r"(rtx ?)?4090( 24 ?gb)?", (82.6, 82.6, 165.2, 165.2), (1008, 24),
           (_PCIE4, None), _ADA),
    _known("RTX 6000 Ada", r"(rtx ?)?6000 ada( generation)?( 48 ?gb)?", (91.1, 182.1, 364.2, 364.2),
           (960, 48 * _ECC), (_PCIE4, None), _ADA),
    _known("RTX 5090", r"(rtx ?)?5090( 32 ?gb)?", (104.8, 104.8, 209.5, 209.5), (1792, 32),
           (_PCIE5, None), _BLACKWELL),
    # Two dies in one package, each a device of its own to torch: half of the data sheet's figures.
    _known("MI250X die 64GB", r"mi250x( die)?( (64|128) ?gb)?", (47.9, None, 191.5, 191.5),
           (1638, 64), (_PCIE4, None), "AMD Instinct MI250X accelerator, data sheet"),
    _known("MI300X", r"mi300x( 192 ?gb)?", (163.4, 653.7, 1307.4, 1307.4), (5300, 192),
           (_PCIE5, 448e9), _CDNA3),
    _known("MI325X", r"mi325x( 256 ?gb)?", (163.4, 653.7, 1307.4, 1307.4), (6000, 256),
           (_PCIE5, 448e9), _CDNA3),
    # Two stacks, each a device of its own to torch (ZE_FLAT_DEVICE_HIERARCHY=FLAT, the default).
    _known("Max 1550 stack 64GB", r"max 1550( stack)?( (64|128) ?gb)?", (26.2, 209.5, 419, 419),
           (1638, 64), (_PCIE5, None), "Intel Data Center GPU Max 1550, product brief"),
    _known("RTX 3050 8GB", r"(rtx ?)?3050( 8 ?gb)?", (9.1, 9.1, 18.2, 18.2), (224, 8),
           (_PCIE4 / 2, None), _GA10X),
    _known("RTX 3060 12GB", r"(rtx ?)?3060( 12 ?gb)?", (12.7, 12.7, 25.5, 25.5), (360, 12),
           (_PCIE4, None), _GA10X),
    _known("RTX 3060 Ti", r"(rtx ?)?3060 ?ti( 8 ?gb)?", (16.2, 16.2, 32.4, 32.4), (448, 8),
           (_PCIE4, None), _GA10X),
    _known("RTX 3070", r"(rtx ?)?3070( 8 ?gb)?", (20.3, 20.3, 40.6, 40.6), (448, 8), (_PCIE4, None),
           _GA102),
    _known("RTX 3080 10GB", r"(rtx ?)?3080( 10 ?gb)?", (29.8, 29.8, 59.5, 59.5), (760, 10),
           (_PCIE4, None), _GA102),
    _known("RTX 4060", r"(rtx ?)?4060( 8 ?gb)?", (15.1, 15.1, 30.2, 30.2), (272, 8),
           (_PCIE4 / 2, None), _ADA_CARDS),
    _known("RTX 4060 Ti 8GB", r"(rtx ?)?4060 ?ti( 8 ?gb)?", (22.1, 22.1, 44.1, 44.1), (288, 8),
           (_PCIE4 / 2, None), _ADA_CARDS),
    _known("RTX 4060 Ti 16GB", r"(rtx ?)?4060 ?ti 16 ?gb", (22.1, 22.1, 44.1, 44.1), (288, 16),
           (_PCIE4 / 2, None), _ADA_CARDS),
    _known("RTX 4070", r"(rtx ?)?4070( 12 ?gb)?", (29.1, 29.1, 58.3, 58.3), (504, 12),
           (_PCIE4, None), _ADA_CARDS),
    _known("RTX 4070 Super", r"(rtx ?)?4070 ?super( 12 ?gb)?", (35.5, 35.5, 71, 71), (504, 12),
           (_PCIE4, None), _ADA_CARDS),
    _known("RTX 4070 Ti", r"(rtx ?)?4070 ?ti( 12 ?gb)?", (40.1, 40.1, 80.2, 80.2), (504, 12),
           (_PCIE4, None), _ADA_CARDS),
    _known("RTX 4080", r"(rtx ?)?4080( 16 ?gb)?", (48.7, 48.7, 97.5, 97.5), (717, 16),
           (_PCIE4, None), _ADA),
    _known("RTX 5060", r"(rtx ?)?5060( 8 ?gb)?", (19.2, 19.2, 38.4, 38.4), (448, 8),
           (_PCIE5 / 2, None), _BLACKWELL_CARDS),
    _known("RTX 5060 Ti 8GB", r"(rtx ?)?5060 ?ti( 8 ?gb)?", (23.7, 23.7, 47.4, 47.4), (448, 8),
           (_PCIE5 / 2, None), _BLACKWELL_CARDS),
    _known("RTX 5060 Ti 16GB", r"(rtx ?)?5060 ?ti 16 ?gb", (23.7, 23.7, 47.4, 47.4), (448, 16),
           (_PCIE5 / 2, None), _BLACKWELL_CARDS),
    _known("RTX 5070", r"(rtx ?)?5070( 12 ?gb)?", (30.9, 30.9, 61.7, 61.7), (672, 12),
           (_PCIE5, None), _BLACKWELL),
    _known("RTX 5070 Ti", r"(rtx ?)?5070 ?ti( 16 ?gb)?", (43.9, 43.9, 87.9, 87.9), (896, 16),
           (_PCIE5, None), _BLACKWELL),
    _known("RTX 5080", r"(rtx ?)?5080( 16 ?gb)?", (56.3, 56.3, 112.6, 112.6), (960, 16),
           (_PCIE5, None), _BLACKWELL),
    _known("RTX PRO 6000 Blackwell",
           r"(rtx ?)?pro 6000( blackwell)?( (max q )?(workstation|server)( edition)?)?( 96 ?gb)?",
           (125, 251.9, 503.8, 503.8), (1792, 96), (_PCIE5, None),
           "NVIDIA RTX PRO Blackwell GPU architecture, whitepaper"),
    _known("L40", r"l40( 48 ?gb)?", (90.5, 90.5, 181, 181), (864, 48 * _ECC), (_PCIE4, None),
           "NVIDIA L40, data sheet"),
    _known("A30", r"a30( 24 ?gb)?", (10.3, 82, 165, 165), (933, 24), (_PCIE4, None),
           "NVIDIA A30, data sheet"),
    _known("A40", r"a40( 48 ?gb)?", (37.4, 74.8, 149.7, 149.7), (696, 48 * _ECC), (_PCIE4, None),
           "NVIDIA A40, data sheet"),
    _known("H200 NVL 141GB", r"h200 nvl( 141 ?gb)?", (60, 417.5, 835.5, 835.5), (4800, 141),
           (_PCIE5, None), _H200),
    _known("GH200 96GB", r"gh200( 480 ?gb)?( 96 ?gb)?", (66.9, 494.7, 989.4, 989.4), (4000, 96),
           (_C2C, None), "NVIDIA GH200 Grace Hopper Superchip, data sheet"),
    _known("GH200 144GB", r"gh200 144 ?gb( hbm3e)?", (66.9, 494.7, 989.4, 989.4), (4900, 144),
           (_C2C, None), "NVIDIA GH200 Grace Hopper Superchip, data sheet"),
    _known("B300 SXM 270GB", r"b300( sxm6?)?( 2[678]\d ?gb)?( ac)?", (75, 1125, 2250, 2250),
           (8000, 270), (_PCIE5, 900e9), "NVIDIA HGX B300, data sheet"),
    _known("MI350X", r"mi350x( 288 ?gb)?", (144.2, None, 2309.6, 2309.6), (8000, 288),
           (_PCIE5, 537600000000.0), _CDNA4),
    _known("MI355X", r"mi355x( 288 ?gb)?", (157.3, None, 2516.6, 2516.6), (8000, 288),
           (_PCIE5, 537600000000.0), _CDNA4),
    # Matrix units: half of the 262 TOPS that Intel states for int8.
    _known("Arc A770 16GB", r"arc a770( graphics)?( 16 ?gb)?", (19.7, None, 131, 131),
           (560, 16), (_PCIE4, None), _ARC),
    _known("Arc B580 12GB", r"arc b580( graphics)?( 12 ?gb)?", (13.7, None, 116.5, 116.5),
           (456, 12), (_PCIE4 / 2, None), _ARC),
    # One memory for host and device, of which torch may use two thirds; the smallest that is sold.
    _known("Apple M1 Max 32GB", r"(apple )?m1 max( 32 ?gb)?", (10.4, None, None, 10.4),
           (400, 32 * 2 / 3), (200e9, None), _APPLE),
    _known("Apple M1 Ultra 64GB", r"(apple )?m1 ultra( 64 ?gb)?", (21, None, None, 21),
           (800, 64 * 2 / 3), (400e9, None), _APPLE),
    _known("Apple M2 Max 32GB", r"(apple )?m2 max( 32 ?gb)?", (13.6, None, None, 13.6),
           (400, 32 * 2 / 3), (200e9, None), _APPLE),
    _known("Apple M2 Ultra 64GB", r"(apple )?m2 ultra( 64 ?gb)?", (27.2, None, None, 27.2),
           (800, 64 * 2 / 3), (400e9, None), _APPLE),
)
# fmt: on


def find_device(text: str) -> KnownDevice:
    """Finds the device that a driver's or a person's words name: ``"NVIDIA H100 80GB HBM3"``,
    ``"a100_40gb"``, ``"H100"``.

    If the words could mean several variants, the commonest is returned; its name says which, and
    :func:`other_variants` names the others.

    Raises:
        UsageError: no device has that name.
    """
    wanted = _plain(text)
    for device in DEVICES:
        if re.fullmatch(device.pattern, wanted):
            return device
    raise UsageError(
        "A device that is not on this machine must be in the catalogue",
        got=repr(text),
        remedy=f"Nearest: {', '.join(_nearest(wanted))}",
    )


def other_variants(text: str) -> tuple[str, ...]:
    """Returns the names of the other devices that all words of ``text`` fit as well; empty for a
    complete name.

    Raises:
        UsageError: no device has that name.
    """
    found, words = find_device(text), set(_plain(text).split())
    return tuple(
        device.name
        for device in DEVICES
        if device is not found and words <= set(_plain(device.name).split())
    )


def _plain(text: str) -> str:
    """Returns the text in lower case, without makers, with single spaces, sizes written as
    ``80gb``."""
    words = _SEPARATORS.sub(" ", _NOISE.sub(" ", text.lower())).strip()
    return re.sub(r"(\d) ?gi?b\b", r"\1gb", words)


def _nearest(wanted: str, count: int = 4) -> list[str]:
    def likeness(device: KnownDevice) -> float:
        first = _plain(device.name).split()
        whole = difflib.SequenceMatcher(None, wanted, " ".join(first)).ratio()
        return max(whole, *(difflib.SequenceMatcher(None, wanted, word).ratio() for word in first))

    return [device.name for device in sorted(DEVICES, key=likeness, reverse=True)[:count]]
