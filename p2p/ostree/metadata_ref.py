"""`ostree-metadata`: a ref whose commits carry a collection's own metadata.

Repositories with a collection id have it so that the metadata can be signed and
travel like content. Source: libostree `ot-builtin-summary.c` (build_additional_
metadata and the commit it makes), OSTREE_REPO_METADATA_REF.
"""

from __future__ import annotations

import stat
import time

from p2p.ostree import summary
from p2p.ostree.glib_order import glib_dictionary
from p2p.ostree.gvariant import Variant
from p2p.ostree.objects import Commit, DirMeta, DirTree, Metadata, ObjectType
from p2p.ostree.refs import head
from p2p.ostree.repo import Repo
from p2p.ostree.summary import Summary
from p2p.ostree.transaction import Transaction

METADATA_REF = "ostree-metadata"


def update_summary(
    repo: Repo, *, timestamp: int | None = None, metadata: Metadata = ()
) -> Summary:
    """Do what `ostree summary --update` does: the metadata's commit, then the file.

    Args:
        repo: only one with a collection id gets the commit.
        timestamp: seconds since 1970 of both; None for now.
        metadata: entries to add to both.

    Raises:
        ObjectNotFoundError: a ref names a commit that is not here.
        LockedError, ReadOnlyError, NoSpaceError: as for a commit.

    """
    now = int(time.time()) if timestamp is None else timestamp
    if repo.config.collection_id is not None:
        _commit_metadata(repo, repo.config.collection_id, now, metadata)
    return summary.regenerate(repo, timestamp=now, metadata=metadata)


def _commit_metadata(
    repo: Repo, collection: str, timestamp: int, metadata: Metadata
) -> None:
    entries = dict(metadata)
    entries["ostree.collection-binding"] = Variant("s", collection)
    entries["ostree.ref-binding"] = Variant("as", (METADATA_REF,))
    ref = head(METADATA_REF)
    meta = DirMeta(0, 0, stat.S_IFDIR | 0o755).serialize()
    with Transaction(repo) as transaction:
        published = None
        while published is None:
            commit = Commit(
                root_dirtree=transaction.add_metadata(
                    ObjectType.DIRTREE, DirTree().serialize()
                ),
                root_dirmeta=transaction.add_metadata(ObjectType.DIRMETA, meta),
                timestamp=timestamp,
                parent=repo.refs.get(ref),
                metadata=glib_dictionary(entries),
            )
            published = transaction.publish(commit.serialize(), detached=None, ref=ref)
