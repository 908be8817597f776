"""What of a repository is shared, and by which names."""

from pathlib import Path

from p2p.agent.meeting import share_refs
from p2p.agent.sharing import Sharing
from p2p.deploy.tree import TreeDeployer
from p2p.ostree.holdings import Holdings
from tests.deploy.places import ONE, REFSPEC, TWO, publish, repo_of


async def test_what_is_deployed_is_shared_but_is_no_branch(tmp_path: Path) -> None:
    repo = repo_of(tmp_path / "repo", ONE)
    TreeDeployer(repo, tmp_path / "root").deploy(REFSPEC, ONE.checksum)
    publish(repo, TWO)
    sharing = Sharing(Holdings.published(repo))
    assert await share_refs(sharing, repo) == []
    told = sharing.message()
    assert {each.commit for each in told.commits} == {ONE.checksum, TWO.checksum}
    assert [(each.ref, each.commit) for each in told.refs] == [("main", TWO.checksum)]
