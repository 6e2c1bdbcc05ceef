"""Compares the account with what Terraform declares: a plan does not see a rule that somebody added beside it."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flowerbed.aws import client

Values = Mapping[str, Any]
_ANY_PROTOCOL = "-1"
_HOP_LIMIT = "HttpPutResponseHopLimit"
_FILTER_VALUES = 200  # as many as the API takes in one filter


@dataclass(frozen=True)
class Difference:
    """One thing that is otherwise in the account than Terraform declares."""

    resource: str
    """Terraform's address of the resource."""
    id: str
    """The account's own name for what differs."""
    what: str
    declared: str
    found: str


@dataclass(frozen=True)
class _Resource:
    address: str
    type: str
    values: Values

    @property
    def region(self) -> str:
        return str(self.values["arn"]).split(":")[3]


def audit(state: Values) -> list[Difference]:
    """Compare security groups, their rules, instances and volumes with the account.

    Args:
        state: Terraform's state, as `terraform show -json` prints it.

    Returns:
        Every difference, by Terraform's address; an empty list if the account is as declared.

    Raises:
        EnvironmentLacks: boto3 or credentials are missing.
        UsageError: the account refuses the credentials.
        WorkFailed: the account does not answer.
    """
    resources = list(_resources(state.get("values", {}).get("root_module", {})))
    regions: dict[str, list[_Resource]] = defaultdict(list)
    for resource in resources:
        if resource.type in ("aws_instance", "aws_security_group"):
            regions[resource.region].append(resource)
    found: list[Difference] = []
    for region, declared in sorted(regions.items()):
        api = client.ec2(region)
        with client.telling(region):
            found += _groups([one for one in declared if one.type == "aws_security_group"], resources, api)
            found += _instances([one for one in declared if one.type == "aws_instance"], api)
    return sorted(found, key=lambda one: (one.resource, one.what, one.id))


def _resources(module: Values) -> Iterator[_Resource]:
    for item in module.get("resources", []):
        if item.get("mode") == "managed":
            yield _Resource(item["address"], item["type"], item["values"])
    for child in module.get("child_modules", []):
        yield from _resources(child)


def _groups(groups: Sequence[_Resource], resources: Sequence[_Resource], api: Any) -> Iterator[Difference]:
    there = _by(_pages(api, "describe_security_groups", "SecurityGroups", "group-id", groups), "GroupId")
    rules: dict[str, dict[str, Values]] = defaultdict(dict)
    for rule in _pages(api, "describe_security_group_rules", "SecurityGroupRules", "group-id", groups):
        rules[rule["GroupId"]][rule["SecurityGroupRuleId"]] = rule
    for group in groups:
        ident = str(group.values["id"])
        if ident not in there:
            yield Difference(group.address, ident, "security group", "there", "gone")
            continue
        yield from _rules(group, _declared_rules(ident, resources), rules[ident])


def _declared_rules(group: str, resources: Sequence[_Resource]) -> dict[str, _Resource]:
    kinds = ("aws_vpc_security_group_ingress_rule", "aws_vpc_security_group_egress_rule")
    return {
        str(one.values["security_group_rule_id"]): one
        for one in resources
        if one.type in kinds and one.values["security_group_id"] == group
    }


def _rules(group: _Resource, declared: Mapping[str, _Resource], found: Mapping[str, Values]) -> Iterator[Difference]:
    for ident, rule in found.items():
        seen = _found_rule(rule)
        if ident not in declared:
            yield Difference(group.address, ident, "rule", "none", seen)
        elif seen != (wanted := _declared_rule(declared[ident])):
            yield Difference(declared[ident].address, ident, "rule", wanted, seen)
    for ident, resource in declared.items():
        if ident not in found:
            yield Difference(resource.address, ident, "rule", _declared_rule(resource), "gone")


def _declared_rule(rule: _Resource) -> str:
    values = rule.values
    way = "in from" if rule.type.endswith("ingress_rule") else "out to"
    peer = next(
        (
            values[key]
            for key in ("cidr_ipv4", "cidr_ipv6", "prefix_list_id", "referenced_security_group_id")
            if values.get(key)
        ),
        "",
    )
    return _rule(way, str(peer), str(values["ip_protocol"]), values.get("from_port"), values.get("to_port"))


def _found_rule(rule: Values) -> str:
    way = "out to" if rule.get("IsEgress") else "in from"
    peer = rule.get("CidrIpv4") or rule.get("CidrIpv6") or rule.get("PrefixListId")
    peer = peer or rule.get("ReferencedGroupInfo", {}).get("GroupId", "")
    return _rule(way, str(peer), str(rule["IpProtocol"]), rule.get("FromPort"), rule.get("ToPort"))


def _rule(way: str, peer: str, protocol: str, first: int | None, last: int | None) -> str:
    if protocol == _ANY_PROTOCOL:
        return f"{way} {peer}, everything"
    ports = f"{first}" if first == last else f"{first}-{last}"
    return f"{way} {peer}, {protocol} {ports}"


def _instances(instances: Sequence[_Resource], api: Any) -> Iterator[Difference]:
    reservations = _pages(api, "describe_instances", "Reservations", "instance-id", instances)
    there = {one["InstanceId"]: one for reservation in reservations for one in reservation["Instances"]}
    volumes = _by(_attached(api, instances), "VolumeId")
    for instance in instances:
        ident = str(instance.values["id"])
        found = there.get(ident)
        state = found["State"]["Name"] if found else "gone"
        if found is None or state in ("terminated", "shutting-down"):
            yield Difference(instance.address, ident, "instance", "there", state)
            continue
        for what, (wanted, seen) in _settings(instance.values, found).items():
            if wanted != seen:
                yield Difference(instance.address, ident, what, wanted, seen)
        yield from _volumes(instance, found, volumes)


def _settings(declared: Values, found: Values) -> dict[str, tuple[str, str]]:
    """What is compared of an instance: as declared, as found."""
    metadata = (declared.get("metadata_options") or [{}])[0]
    names = {"http_endpoint": "HttpEndpoint", "http_tokens": "HttpTokens", "http_put_response_hop_limit": _HOP_LIMIT}
    # What the account does not tell counts as declared.
    options = {key: found.get("MetadataOptions", {}).get(name, metadata.get(key)) for key, name in names.items()}
    groups = {group["GroupId"] for group in found.get("SecurityGroups", [])}
    for interface in found.get("NetworkInterfaces", []):
        groups |= {group["GroupId"] for group in interface.get("Groups", [])}
    profile = found.get("IamInstanceProfile", {}).get("Arn", "").rpartition("/")[2]
    return {
        "metadata service": (str(metadata.get("http_endpoint")), str(options["http_endpoint"])),
        "IMDSv2": (str(metadata.get("http_tokens")), str(options["http_tokens"])),
        "metadata hop limit": (
            str(metadata.get("http_put_response_hop_limit")),
            str(options["http_put_response_hop_limit"]),
        ),
        "security groups": (_joined(declared.get("vpc_security_group_ids") or []), _joined(groups)),
        "instance profile": (declared.get("iam_instance_profile") or "none", profile or "none"),
        "instance type": (str(declared.get("instance_type")), str(found.get("InstanceType"))),
        "subnet": (str(declared.get("subnet_id")), str(found.get("SubnetId"))),
        "key pair": (declared.get("key_name") or "none", found.get("KeyName") or "none"),
    }


def _volumes(instance: _Resource, found: Values, volumes: Mapping[str, Values]) -> Iterator[Difference]:
    blocks = [*(instance.values.get("root_block_device") or []), *(instance.values.get("ebs_block_device") or [])]
    declared = {str(block["volume_id"]): block for block in blocks if block.get("volume_id")}
    for mapping in found.get("BlockDeviceMappings", []):
        ident = str(mapping.get("Ebs", {}).get("VolumeId", ""))
        if ident not in declared:
            yield Difference(instance.address, ident, "volume", "none", f"attached as {mapping.get('DeviceName')}")
            continue
        wanted = _encryption(declared[ident].get("encrypted"), declared[ident].get("kms_key_id"))
        seen = _encryption(volumes.get(ident, {}).get("Encrypted"), volumes.get(ident, {}).get("KmsKeyId"))
        if wanted != seen:
            yield Difference(instance.address, ident, "volume", wanted, seen)


def _encryption(encrypted: object, key: object) -> str:
    return f"encrypted with {str(key).rpartition('/')[2]}" if encrypted else "not encrypted"


def _attached(api: Any, instances: Sequence[_Resource]) -> list[Values]:
    return _pages(api, "describe_volumes", "Volumes", "attachment.instance-id", instances)


def _pages(api: Any, call: str, key: str, name: str, resources: Sequence[_Resource]) -> list[Values]:
    """All that the account has under the resources' ids; an id that is gone gives nothing instead of an error."""
    ids = [str(one.values["id"]) for one in resources]
    batches = [ids[start : start + _FILTER_VALUES] for start in range(0, len(ids), _FILTER_VALUES)]
    return [
        item
        for batch in batches
        for page in api.get_paginator(call).paginate(Filters=[{"Name": name, "Values": batch}])
        for item in page[key]
    ]


def _by(items: Sequence[Values], key: str) -> dict[str, Values]:
    return {str(item[key]): item for item in items}


def _joined(values: Any) -> str:
    return ", ".join(sorted(str(value) for value in values)) or "none"
