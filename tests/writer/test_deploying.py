"""The writer deploys where it was told to, and only what it can verify once more."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from p2p.agent.writing import Writer
from p2p.deploy.target import SysrootTarget, TreeTarget
from p2p.errors import (
    BindingError,
    ConfigError,
    DeployError,
    Error,
    FormatError,
    ObjectNotFoundError,
    SignatureError,
    UnsignedError,
)
from p2p.ostree.messages import Deploy, Rollback, StageSignatures
from p2p.ostree.objects import Checksum
from p2p.ostree.refs import remote_ref
from p2p.ostree.repo import Repo
from tests.deploy.places import (
    MAIN,
    ONE,
    REFSPEC,
    TWO,
    assert_sound,
    publish,
)
from tests.ostree.samples import Sample
from tests.trust.samples import ALICE, BOB, signed
from tests.writer.conftest import FORMS, opened
from tests.writer.test_service import configure, publishing, staging


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def deploying(form: str, repo: Repo, root: Path) -> AsyncIterator[Writer]:
    """A writer that deploys into `root`; every test with it runs on all forms."""
    async with opened(form, repo, TreeTarget(str(root))) as writer:
        yield writer


def assert_undeployed(root: Path) -> None:
    assert not root.exists()


def mark_partial(repo: Repo, commit: Sample) -> None:
    Path(repo.partial_path(commit.checksum)).touch()


async def test_what_was_published_is_deployed_and_rolled_back(
    repo: Repo, deploying: Writer, root: Path
) -> None:
    for each in (ONE, TWO):
        await deploying.call(staging(each))
        await deploying.call(publishing(each))
        done = await deploying.call(Deploy(REFSPEC, each.checksum))
        assert done.deployed is not None
        assert done.deployed.changed
        assert done.deployed.id == f"{each.checksum}.0"
        assert assert_sound(root) == each.checksum
    done = await deploying.call(Deploy(REFSPEC, TWO.checksum))
    assert done.deployed is not None
    assert not done.deployed.changed
    done = await deploying.call(Rollback())
    assert done.deployed is not None
    assert done.deployed.id == f"{ONE.checksum}.0"
    assert assert_sound(root) == ONE.checksum


async def test_without_a_place_it_says_what_is_missing(form: str, repo: Repo) -> None:
    publish(repo, ONE)
    async with opened(form, repo, None) as writer:
        for request in (Deploy(REFSPEC, ONE.checksum), Rollback()):
            with pytest.raises(DeployError, match="no place to deploy") as caught:
                await writer.call(request)
            assert "--tree" in caught.value.hint


async def test_a_place_that_cannot_be_one_is_refused_at_once(
    form: str, repo: Repo, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="not an OSTree sysroot"):
        async with opened(form, repo, SysrootTarget(str(tmp_path), "os")):
            pass


@pytest.mark.parametrize(
    "refspec, kind",
    [
        ("o:other", DeployError),
        ("main", FormatError),
        ("nowhere:main", ConfigError),
        ("o:../../main", FormatError),
        ("", FormatError),
        (":main", FormatError),
        ("o:", FormatError),
    ],
)
async def test_a_ref_that_does_not_name_it_is_refused(
    repo: Repo, deploying: Writer, root: Path, refspec: str, kind: type[Error]
) -> None:
    publish(repo, ONE)
    with pytest.raises(kind):
        await deploying.call(Deploy(refspec, ONE.checksum))
    assert_undeployed(root)


async def test_a_commit_that_the_ref_has_left_is_refused(
    repo: Repo, deploying: Writer, root: Path
) -> None:
    for each in (ONE, TWO):
        publish(repo, each)
    with pytest.raises(DeployError, match=TWO.checksum):
        await deploying.call(Deploy(REFSPEC, ONE.checksum))
    assert_undeployed(root)


async def test_a_commit_that_is_partial_or_gone_is_refused(
    repo: Repo, deploying: Writer, root: Path
) -> None:
    publish(repo, ONE)
    mark_partial(repo, ONE)
    with pytest.raises(ObjectNotFoundError, match="as a whole"):
        await deploying.call(Deploy(REFSPEC, ONE.checksum))
    lost = Checksum("0" * 64)
    repo.refs.set(MAIN, lost)
    with pytest.raises(ObjectNotFoundError):
        await deploying.call(Deploy(REFSPEC, lost))
    assert_undeployed(root)


async def test_a_commit_that_was_made_for_another_branch_is_refused(
    repo: Repo, deploying: Writer, root: Path
) -> None:
    publish(repo, ONE)
    repo.refs.set(remote_ref("o", "other"), ONE.checksum)
    with pytest.raises(BindingError):
        await deploying.call(Deploy("o:other", ONE.checksum))
    assert_undeployed(root)


async def test_the_keys_of_now_must_have_signed_it(
    repo: Repo, deploying: Writer, root: Path
) -> None:
    """It was published when nothing had to be signed."""
    await deploying.call(staging(ONE))
    await deploying.call(publishing(ONE))
    configure(repo, sign_verify="true", verification_ed25519_key=str(ALICE.public))
    with pytest.raises(UnsignedError):
        await deploying.call(Deploy(REFSPEC, ONE.checksum))
    for signer, refused in ((BOB, True), (ALICE, False)):
        await deploying.call(StageSignatures(ONE.checksum, signed(ONE.data, signer)))
        configure(repo, verification_ed25519_key=str(signer.public))
        await deploying.call(publishing(ONE))
        configure(repo, verification_ed25519_key=str(ALICE.public))
        if refused:
            with pytest.raises(SignatureError):
                await deploying.call(Deploy(REFSPEC, ONE.checksum))
            assert_undeployed(root)
        else:
            await deploying.call(Deploy(REFSPEC, ONE.checksum))
    assert assert_sound(root) == ONE.checksum
