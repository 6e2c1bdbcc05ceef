# What the platform makes of its variables, with the provider's real schema and no account: nothing is applied.

mock_provider "aws" {}
mock_provider "aws" {
  alias = "eu_central_1"
}
mock_provider "aws" {
  alias = "eu_north_1"
}
mock_provider "aws" {
  alias = "eu_west_1"
}
mock_provider "aws" {
  alias = "eu_west_3"
}

variables {
  federation     = "aws"
  federation_dir = abspath("tests/federation") # holds nothing but a public key
}

run "a_site_needs_no_more_than_a_name" {
  command = plan

  variables {
    sites = { hospital-a = {}, hospital-b = { region = "eu-west-1" } }
  }

  assert {
    condition     = output.inventory.schema == 1
    error_message = "The schema version is what Python checks first."
  }
  assert {
    condition     = toset(keys(output.inventory.coordinator)) == toset(["name", "address", "port", "user", "host_key", "instance", "session_manager", "python"])
    error_message = "The coordinator's keys are the contract's."
  }
  assert {
    condition = alltrue([for site in values(output.inventory.sites) :
      toset(keys(site)) == toset(["address", "port", "user", "host_key", "instance", "session_manager", "python", "labels", "node_config", "data_path"])
    ])
    error_message = "A site's keys are the contract's."
  }
  assert {
    condition     = output.inventory.coordinator.session_manager && alltrue([for site in values(output.inventory.sites) : site.session_manager])
    error_message = "Session Manager is the way in unless a network for SSH is named."
  }
  assert {
    condition     = keys(module.sites_eu_central_1) == ["hospital-a"] && keys(module.sites_eu_west_1) == ["hospital-b"]
    error_message = "A site is in its region, which is the coordinator's unless it names another one."
  }
  assert {
    condition     = length(module.network_eu_west_3) + length(module.sites_eu_west_3) == 0
    error_message = "A region without sites has no network."
  }
}

run "what_a_site_sets_is_what_it_gets" {
  command = plan

  variables {
    coordinator = { name = "centre", gateway_port = 8443, os = "ubuntu-24.04", ssh_from = "198.51.100.0/24" }
    sites = {
      hospital-a = {
        os               = "ubuntu-24.04"
        vpc_id           = "vpc-0123456789abcdef0"
        subnet_id        = "subnet-0123456789abcdef0"
        outbound_address = "203.0.113.7"
        ssh_from         = "10.0.0.0/16"
        data_path        = "/srv/hospital"
        labels           = { region = "north" }
        node_config      = { partition-id = "3" }
      }
      hospital-b = {
        vpc_id           = "vpc-0123456789abcdef0"
        subnet_id        = "subnet-0123456789abcdef0"
        outbound_address = "203.0.113.7"
      }
    }
    gateway_clients = { clinic = "203.0.113.8" }
  }

  assert {
    condition     = output.inventory.coordinator.name == "centre" && output.gateway.port == 8443
    error_message = "The coordinator has the name and the gateway the port that were set."
  }
  assert {
    condition     = output.inventory.coordinator.user == "ubuntu" && output.inventory.sites["hospital-a"].user == "ubuntu" && output.inventory.sites["hospital-b"].user == "admin"
    error_message = "The login user is the system's own."
  }
  assert {
    condition     = !output.inventory.coordinator.session_manager && !output.inventory.sites["hospital-a"].session_manager && output.inventory.sites["hospital-b"].session_manager
    error_message = "A machine has one way in, SSH or Session Manager."
  }
  assert {
    condition     = output.inventory.sites["hospital-a"].labels == tomap({ region = "north" }) && output.inventory.sites["hospital-a"].node_config == tomap({ partition-id = "3" })
    error_message = "Labels and node config pass unchanged."
  }
  assert {
    condition     = output.inventory.sites["hospital-a"].data_path == "/srv/hospital" && output.inventory.sites["hospital-b"].data_path == ""
    error_message = "The data folder passes unchanged; without one it is empty."
  }
  assert {
    condition     = length(module.network_eu_central_1) == 0
    error_message = "No network is made where every site brings its own."
  }
  assert {
    condition     = [for client in values(local.clients) : "${client.address} ${client.description}"] == ["203.0.113.7 hospital-a, hospital-b", "203.0.113.8 clinic"]
    error_message = "An address that two sites share is let in once."
  }
}

run "a_machine_is_what_the_hospital_was_promised" {
  command = plan

  module {
    source = "../../modules/aws_machine"
  }

  variables {
    name           = "hospital-a"
    ssh_public_key = "ssh-ed25519 AAAA"
    network        = { vpc_id = "vpc-1", subnet_id = "subnet-1", session_manager = { security_group_id = "sg-1", prefix_list_id = "pl-1" } }
  }

  assert {
    condition     = aws_instance.this.metadata_options[0].http_tokens == "required" && aws_instance.this.metadata_options[0].http_put_response_hop_limit == 1
    error_message = "The instance's credentials are had by IMDSv2 on the machine itself only."
  }
  assert {
    condition     = aws_instance.this.root_block_device[0].encrypted && aws_instance.this.root_block_device[0].volume_type == "gp3" && aws_kms_key.disk.enable_key_rotation
    error_message = "The disk is encrypted with a key that is rotated."
  }
  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.ssh) == 0
    error_message = "Session Manager needs no way in."
  }
  assert {
    condition     = !strcontains(aws_instance.this.user_data, "ssh-ed25519") && strcontains(aws_instance.this.user_data, "amazon-ssm-agent")
    error_message = "The user data bring Debian the agent, and hold no key."
  }
  assert {
    condition     = aws_instance.this.instance_type == "t3.medium" && data.aws_ami.this[0].owners[0] == "136693071363"
    error_message = "A machine that sets nothing is a t3.medium with Debian's own image."
  }
}

run "an_arm_machine_has_an_arm_image" {
  command = plan

  module {
    source = "../../modules/aws_machine"
  }

  variables {
    name           = "hospital-a"
    ssh_public_key = "ssh-ed25519 AAAA"
    machine        = { instance_type = "m7g.large", os = "debian-13", ssh_from = "198.51.100.0/24" }
    network        = { vpc_id = "vpc-1", subnet_id = "subnet-1" }
  }

  assert {
    condition     = one(data.aws_ami.this[0].filter).values == toset(["debian-13-arm64-*"])
    error_message = "The image is for the instance type's processor."
  }
  assert {
    condition     = length(aws_iam_instance_profile.this) == 0 && aws_vpc_security_group_ingress_rule.ssh[0].cidr_ipv4 == "198.51.100.0/24"
    error_message = "With SSH as the way in there is one rule for it and no role."
  }
}

run "a_gpu_is_had_by_asking_for_one" {
  command = plan

  module {
    source = "../../modules/aws_machine"
  }

  variables {
    name           = "hospital-a"
    ssh_public_key = "ssh-ed25519 AAAA"
    machine        = { gpu = true, image = "ami-0123456789abcdef0", ssh_from = "198.51.100.0/24" }
    network        = { vpc_id = "vpc-1", subnet_id = "subnet-1" }
  }

  assert {
    condition     = aws_instance.this.instance_type == "g4dn.xlarge"
    error_message = "The instance type has a GPU."
  }
  assert {
    condition     = aws_instance.this.ami == "ami-0123456789abcdef0" && length(data.aws_ami.this) == 0
    error_message = "With an image of one's own no other is looked for."
  }
}
