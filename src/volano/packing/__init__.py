"""Trains many tasks of one structure as one program."""

from volano.packing.member import Member
from volano.packing.pack import Pack
from volano.packing.pack_size import PackSize, pack_size
from volano.packing.program_cache import ProgramCache
from volano.packing.structure.grouping import TaskGroup, groups_of

__all__ = ["Member", "Pack", "PackSize", "ProgramCache", "TaskGroup", "groups_of", "pack_size"]
