"""Trains many tasks of one structure as one program."""

from volano.packing.member import Member
from volano.packing.pack import Pack
from volano.packing.pack_size import PackSize, pack_size
from volano.packing.structure.grouping import groups_of

__all__ = ["Member", "Pack", "PackSize", "groups_of", "pack_size"]
