"""The data: its order, where it comes from, and how it reaches the device."""

from volano.data.arrays import Arrays, rows_of, take
from volano.data.counters import counter_hash
from volano.data.datasets.mapped import MemoryMapped
from volano.data.datasets.open_table import open_table
from volano.data.datasets.spool import spool
from volano.data.datasets.tokens import (
    MOST_TOKENS,
    TokenWindows,
    open_tokens,
    scoring_windows,
    write_tokens,
)
from volano.data.feed.feed import Feed, RingFeed, can_be_resident, make_feed, why_streamed
from volano.data.feed.fetch import Fault, Fetcher, first_batches
from volano.data.feed.quarantine import Quarantine, check_readable, fault_notices
from volano.data.feed.worker_count import WorkerChoice, choose_workers
from volano.data.order import ORDER_VERSION, Key, Order, in_sequence, permutation

__all__ = [
    "MOST_TOKENS",
    "ORDER_VERSION",
    "Arrays",
    "Fault",
    "Feed",
    "Fetcher",
    "Key",
    "MemoryMapped",
    "Order",
    "Quarantine",
    "RingFeed",
    "TokenWindows",
    "WorkerChoice",
    "can_be_resident",
    "check_readable",
    "choose_workers",
    "counter_hash",
    "fault_notices",
    "first_batches",
    "in_sequence",
    "make_feed",
    "open_table",
    "open_tokens",
    "permutation",
    "rows_of",
    "scoring_windows",
    "spool",
    "take",
    "why_streamed",
    "write_tokens",
]
