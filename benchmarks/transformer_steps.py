"""The operations and the memory of a training step of a decoder transformer, in closed form.

Shapes of the MPT family from the configurations of llm-foundry
(scripts/train/yamls/pretrain/mpt-*.yaml): a decoder with a vocabulary of 50,368, learned positions,
four times as wide feed-forward layers and no biases. Other models are taken as of that kind, with
their own width, layers and vocabulary, and blocks scaled to their number of parameters. Computed in
half precision with an attention that keeps no scores (FlashAttention).
"""

from __future__ import annotations

from dataclasses import dataclass

from volano.plan.prediction import MemoryPrediction, Operation, PhaseName
from volano.planner.cluster.sharded_step import GatherUnits

VOCABULARY, EXPANSION = 50_368, 4
# model -> (width, layers)
FAMILY = {
    "125m": (768, 12),
    "350m": (1024, 24),
    "760m": (1536, 24),
    "1b": (2048, 24),
    "3b": (2560, 32),
    "7b": (4096, 32),
    "13b": (5120, 40),
    "30b": (7168, 48),
    "70b": (8192, 80),
}
# Published shapes of others, by their parameters in millions: width, layers, vocabulary. A model
# that is none of them is taken to be as wide and deep as the nearest.
SHAPES = {
    124: (768, 12, 50_257),
    355: (1024, 24, 50_257),
    774: (1280, 36, 50_257),
    1_558: (1600, 48, 50_257),
    1_236: (2048, 16, 128_256),
    2_700: (2560, 32, 50_272),
    3_213: (3072, 28, 128_256),
    6_738: (4096, 32, 32_000),
    8_030: (4096, 32, 128_256),
    13_016: (5120, 40, 32_000),
    20_555: (6144, 44, 50_432),
    32_529: (6656, 60, 32_000),
    65_286: (8192, 80, 32_000),
    70_554: (8192, 80, 128_256),
    175_000: (12_288, 96, 50_257),
    405_000: (16_384, 126, 128_256),
}
_HALF, _SINGLE = 2, 4  # bytes of bf16 and fp32


@dataclass(frozen=True, kw_only=True)
class Run:
    """One row of the table: a model trained on some ranks. ``passes`` micro-batches make a rank's
    step; ``blocks_scale`` is the size of a block against that of MPT's of its width."""

    model: str
    precision: str
    micro_batch: int
    length: int
    passes: int
    num_ranks: int
    recompute: bool
    sharding: str = "full"
    shape: tuple[int, int] = (0, 0)
    vocabulary: int = VOCABULARY
    blocks_scale: float = 1.0

    @property
    def tokens(self) -> int:
        """Of one micro-batch on one rank."""
        return self.micro_batch * self.length


def units(run: Run) -> GatherUnits:
    """What is gathered at once: the embeddings, then each block. Gradients are summed in bf16 where
    all is."""
    width, layers = run.shape
    block = (4 + 2 * EXPANSION) * width**2 + 2 * width
    block = int(block * run.blocks_scale)
    return GatherUnits(
        parameters=((run.vocabulary + run.length) * width, *(block,) * layers),
        gather_bytes=_HALF,
        reduce_bytes=_HALF if run.precision == "bf16 PURE" else _SINGLE,
    )


def operations(run: Run) -> list[Operation]:
    """Of one rank's step: forward passes, backward passes (with the blocks' forward passes where
    they are recomputed), and the update of its share of the parameters."""
    width, layers = run.shape
    tokens, passes = run.tokens, run.passes
    again = 1 if run.recompute else 0
    made = [
        *_block(run, "forward", passes * layers, matmuls=1, attentions=1.0, moves=1),
        *_block(run, "backward", passes * layers, matmuls=2, attentions=2.5, moves=2),
        *_block(run, "backward", again * passes * layers, matmuls=1, attentions=1.0, moves=1),
    ]
    # The loss in fp32: logits read and widened, their log-softmax; back from that, and narrowed.
    for phase, times, touched in (
        ("forward", 1, _HALF + 3 * _SINGLE),
        ("backward", 2, 4 * _SINGLE + _HALF),
    ):
        made.append(_product(phase, tokens, width, run.vocabulary, times * passes))
        made.append(_pointwise(phase, "loss", touched * tokens * run.vocabulary, passes))
    share = -(-sum(units(run).parameters) // (1 if run.sharding == "none" else run.num_ranks))
    # AdamW reads parameter, gradient and two averages, and writes all but the gradient; before that
    # the norm of the gradients is taken and they are scaled.
    made.append(_pointwise("optimizer", "adamw", (7 + 3) * _SINGLE * share, 1))
    return [operation for operation in made if operation.count]


def _block(
    run: Run, phase: PhaseName, count: int, *, matmuls: int, attentions: float, moves: int
) -> list[Operation]:
    """Of ``count`` blocks; so many times the products, attentions and bytes of a forward pass."""
    width, _ = run.shape
    tokens = run.tokens
    outputs = (3 * width, width, EXPANSION * width)
    products = [
        _product(phase, tokens, width, int(size * run.blocks_scale), count * matmuls)
        for size in (*outputs, EXPANSION * width)
    ]
    # Two products of length x length, counted as torch's counter does: with what lies in the
    # future.
    scores = 4 * run.micro_batch * run.length**2 * width
    attention = Operation(
        name="attention",
        phase=phase,
        kind="attention",
        dtype="bf16",
        flops=int(attentions * scores),
        num_bytes=int(attentions * 4 * tokens * width * _HALF),
        count=count,
    )
    # Two norms (read, write), two sums (read two, write), the activation (read, write four times
    # the width).
    elements = (2 * 2 + 2 * 3 + 2 * EXPANSION) * tokens * width
    return [*products, attention, _pointwise(phase, "norms", moves * elements * _HALF, count)]


def _product(phase: PhaseName, rows: int, inner: int, columns: int, count: int) -> Operation:
    return Operation(
        name="mm",
        phase=phase,
        kind="matmul",
        dtype="bf16",
        flops=2 * rows * inner * columns,
        num_bytes=_HALF * (rows * inner + inner * columns + rows * columns),
        count=count,
    )


def _pointwise(phase: PhaseName, name: str, num_bytes: int, count: int) -> Operation:
    return Operation(
        name=name,
        phase=phase,
        kind="pointwise",
        dtype="bf16",
        flops=0,
        num_bytes=num_bytes,
        count=count,
    )


def memory(run: Run) -> MemoryPrediction:
    """Of the whole model on one device, to be sharded: fp32 parameters, gradients and two averages.

    A block keeps, in elements per token and width: the inputs of two norms and their outputs,
    queries, keys and values, the attention's output, and 2 x 4 around the activation. Recomputed,
    it keeps its input, and one block at a time keeps all. Logits: between what an in-place loss
    holds (itself in bf16, and a gradient) and what ``cross_entropy`` in fp32 does.
    """
    width, layers = run.shape
    tokens, count = run.tokens, sum(units(run).parameters)
    kept = (2 + 2 + 3 + 1 + 2 * EXPANSION) * tokens * width * _HALF
    blocks = layers * tokens * width * _HALF + kept if run.recompute else layers * kept
    least, likely, most = (
        size * tokens * run.vocabulary for size in (2 * _HALF, 3 * _HALF, 2 * _HALF + 2 * _SINGLE)
    )
    categories = {
        "parameters": _SINGLE * count,
        "gradients": _SINGLE * count,
        "optimizer_state": 2 * _SINGLE * count,
        "activations": blocks,
        "temporaries": likely,
    }
    peak = sum(categories.values())
    return MemoryPrediction(
        peak=peak,
        lower=peak - likely + least,
        upper=peak - likely + most,
        categories=categories,
        operator="loss",
    )
