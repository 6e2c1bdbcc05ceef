"""The officer's page names only proofs that exist."""

import ast

from flowerbed import dossier
from flowerbed.paths import REPOSITORY


def test_every_test_that_the_page_names_is_there() -> None:
    for stop in dossier.STOPS:
        file, _, name = stop.test.partition("::")
        tree = ast.parse((REPOSITORY / file).read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, stop


def test_what_a_host_opens_is_named_where_its_rules_hold_it_in_a_set() -> None:
    rules = """
    set ipv4_peers { type ipv4_addr; elements = { flower.example }; }
    set ipv6_peers { type ipv6_addr;  }
    chain supernode {
        ip daddr @ipv4_peers tcp dport 443 accept
        ip6 daddr @ipv6_peers tcp dport 443 accept
        meta l4proto { tcp, udp } th dport 53 accept
        counter reject
    }
    """
    outgoing = dossier._outgoing(rules)
    assert outgoing == ["ip daddr flower.example tcp dport 443", "meta l4proto { tcp, udp } th dport 53"]
