"""The order of the data, where it comes from, and how it reaches the device."""

from volano.data.arrays import Arrays, rows_of, take, tensor_tree
from volano.data.choice import WorkerChoice, choose_workers
from volano.data.counters import counter_hash
from volano.data.feed import Feed, ResidentFeed, RingFeed, can_be_resident, make_feed, why_streamed
from volano.data.fetch import Fault, Fetched, Fetcher
from volano.data.mapped import MemoryMapped
from volano.data.order import ORDER_VERSION, Key, Order, in_sequence, permutation
from volano.data.quarantine import MAX_SHARE, Quarantine
from volano.data.spool import Spooled, spool
from volano.data.tables import open_table
from volano.data.tokens import MOST_TOKENS, TokenWindows, as_tensor, open_tokens, scoring_windows, write_tokens

__all__ = [
    "MAX_SHARE",
    "MOST_TOKENS",
    "ORDER_VERSION",
    "Arrays",
    "Fault",
    "Feed",
    "Fetched",
    "Fetcher",
    "Key",
    "MemoryMapped",
    "Order",
    "Quarantine",
    "ResidentFeed",
    "RingFeed",
    "Spooled",
    "TokenWindows",
    "WorkerChoice",
    "as_tensor",
    "can_be_resident",
    "choose_workers",
    "counter_hash",
    "in_sequence",
    "make_feed",
    "open_table",
    "open_tokens",
    "permutation",
    "rows_of",
    "scoring_windows",
    "spool",
    "take",
    "tensor_tree",
    "why_streamed",
    "write_tokens",
]
