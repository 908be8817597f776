"""Stages a commit of one repository into another, and publishes it.

As a program: `transfer.py SOURCE TARGET FORM CUT PUBLISHER`, so that it can run as
another user. SOURCE is an archive repository with the ref `main`; FORM is canonical
or filez; CUT is the size of the pieces in bytes, 0 for whole objects; PUBLISHER is
native or libostree.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from p2p.ostree.filez import to_canonical
from p2p.ostree.libostree import LibostreePublisher
from p2p.ostree.messages import (
    AddPiece,
    BeginObject,
    Done,
    Form,
    Request,
    StageObjects,
)
from p2p.ostree.objects import Checksum, ObjectName, ObjectType
from p2p.ostree.publish import NativePublisher, NewCommit, Publication
from p2p.ostree.refs import head, remote_ref
from p2p.ostree.repo import Repo
from p2p.writer.service import WriterService

PUBLISHERS = {"native": NativePublisher, "libostree": LibostreePublisher}


def read_objects(source: Path, form: Form) -> Iterator[tuple[ObjectName, Form, bytes]]:
    """Every object of an archive repository but detached metadata."""
    repo = Repo.open(source)
    for name in repo.all_objects():
        data = Path(repo.object_path(name)).read_bytes()
        if name.type is not ObjectType.FILE:
            yield name, Form.CANONICAL, data
        elif form is Form.FILEZ:
            yield name, form, data
        else:
            yield name, form, to_canonical(data, limit=1 << 30)


def requests(
    objects: Iterator[tuple[ObjectName, Form, bytes]], *, cut: int
) -> Iterator[Request]:
    """What an agent sends to have them staged."""
    for name, form, data in objects:
        if not cut or name.type is not ObjectType.FILE:
            yield StageObjects(((name, form, data),))
            continue
        yield BeginObject(name, form, len(data))
        for start in range(0, len(data), cut):
            last = start + cut >= len(data)
            yield AddPiece(name, data[start : start + cut], last=last)


def main_of(source: Path) -> Checksum:
    """The commit of the ref `main`."""
    return Repo.open(source).refs.resolve(head("main"))


def publication(source: Path, *, remote: str = "o") -> Publication:
    """The head of `main`, to become what the remote's ref names."""
    checksum = main_of(source)
    commit = NewCommit(
        checksum=checksum, commit=Repo.open(source).load_commit(checksum)
    )
    refs = ((remote_ref(remote, "main"), checksum),)
    return Publication(commits=(commit,), refs=refs)


def transfer(
    source: Path, target: Path, *, form: Form, cut: int, publisher: str
) -> None:
    """Stage all and publish it."""
    with WriterService(Repo.open(target)) as service:
        for request in requests(read_objects(source, form), cut=cut):
            assert service.handle(request) == Done(), request
        PUBLISHERS[publisher](service.stage).publish(publication(source))


if __name__ == "__main__":
    transfer(
        Path(sys.argv[1]),
        Path(sys.argv[2]),
        form=Form[sys.argv[3].upper()],
        cut=int(sys.argv[4]),
        publisher=sys.argv[5],
    )
