"""Who answers for a list of unit hashes that came through others."""

from p2p.agent.authors import Authors
from tests.swarm.rig import ANNA, BERT, CLEO

KEY, OTHER, THIRD = b"a" * 32, b"b" * 32, b"c" * 32


def test_whoever_announced_the_key_answers_whoever_passed_it_on() -> None:
    authors = Authors()
    authors.add(ANNA, KEY)
    assert authors.of(ANNA, KEY) == ANNA
    assert authors.of(BERT, KEY) == ANNA
    assert not authors.convict(ANNA)
    assert authors.of(BERT, KEY) == ANNA


def test_a_key_that_two_claim_is_answered_for_by_who_gave_it() -> None:
    authors = Authors()
    authors.add(ANNA, KEY)
    authors.add(CLEO, KEY)
    authors.add(CLEO, b"")
    assert authors.of(BERT, KEY) == BERT
    assert authors.of(ANNA, KEY) == ANNA


def test_a_relay_may_pass_on_one_false_list_of_strangers_and_no_more() -> None:
    authors = Authors()
    stranger = authors.of(BERT, KEY)
    assert stranger not in {ANNA, BERT, CLEO}
    assert authors.of(CLEO, KEY) == stranger
    assert authors.of(BERT, OTHER) not in {stranger, BERT}
    assert authors.convict(stranger)
    # Made-up keys help only once.
    assert authors.of(BERT, THIRD) == BERT
    assert authors.of(CLEO, THIRD) == CLEO
    assert authors.of(ANNA, THIRD) not in {ANNA, BERT, CLEO}
