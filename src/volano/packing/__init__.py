"""Many tasks of one structure, trained as one program.

- Which tasks are alike, and which numbers vary: ``likeness``, ``comparison``, ``captured``. What a
  call changes of what a person's code holds: ``belongings``.
- A member, and what it has alone: ``member``, ``solo``. Many as one tensor: ``stack``. Their batches: ``feeding``.
- The contract of an engine: ``engine``; E0: ``loop``, and ``each``; E1 to E3: ``stacked``, which run a ``program``
  in which torch's ``functions`` are given their ``draws`` and computed by ``rules``. What an engine does not take:
  ``refusal``, ``limits``.
- Updates: ``optimizers`` (each member's own), ``flat`` (all at once), ``averages``.
- Packs of one structure: ``family``; the engine that trains them: ``choice``; how many members: ``sizing``.
- All together: ``pack``. A member alone again, to compare: ``replay``.
"""

from volano.packing.member import Member
from volano.packing.pack import Pack
from volano.packing.pack_size import PackSize, pack_size
from volano.packing.program_cache import ProgramCache
from volano.packing.structure.grouping import TaskGroup, groups_of

__all__ = ["Member", "Pack", "PackSize", "ProgramCache", "TaskGroup", "groups_of", "pack_size"]
