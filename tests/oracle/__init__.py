"""What is right, without a line of the code under test.

Stock `ostree`, an independent walker over repositories, and a comparison of
two repositories inode by inode. Only the standard library is used.
"""

from tests.oracle.snapshot import ObjectStat, differences, snapshot
from tests.oracle.split import split_xattrs_repo
from tests.oracle.stock import Ostree, OstreeError
from tests.oracle.walker import Closure, Report, closure, dangling, walk_objects

__all__ = [
    "Closure",
    "ObjectStat",
    "Ostree",
    "OstreeError",
    "Report",
    "closure",
    "dangling",
    "differences",
    "snapshot",
    "split_xattrs_repo",
    "walk_objects",
]
