# What the modules themselves refuse; both platforms use them, so that a rule and its message stand in one place.

mock_provider "aws" {}

variables {
  federation     = "aws"
  federation_dir = abspath("tests/federation")
  name           = "hospital-a"
  ssh_public_key = "ssh-ed25519 AAAA"
  gateway        = { address = "198.51.100.7" }
  network = {
    vpc_id          = "vpc-1"
    subnet_id       = "subnet-1"
    session_manager = { security_group_id = "sg-1", prefix_list_id = "pl-1" }
  }
}

run "an_unknown_system" {
  command = plan

  module {
    source = "../../modules/aws_machine"
  }

  variables {
    machine = { os = "windows" }
  }

  expect_failures = [var.machine]
}

run "an_instance_type_that_is_none" {
  command = plan

  module {
    source = "../../modules/aws_machine"
  }

  variables {
    machine = { instance_type = "big" }
  }

  expect_failures = [var.machine]
}

run "a_gpu_that_the_instance_type_lacks" {
  command = plan

  module {
    source = "../../modules/aws_machine"
  }

  variables {
    machine = { gpu = true, instance_type = "m7i.large" }
  }

  expect_failures = [var.machine]
}

run "a_disk_that_is_too_small" {
  command = plan

  module {
    source = "../../modules/aws_machine"
  }

  variables {
    machine = { disk_size = 4 }
  }

  expect_failures = [var.machine]
}

run "a_disk_of_half_a_gigabyte" {
  command = plan

  module {
    source = "../../modules/aws_machine"
  }

  variables {
    machine = { disk_size = 30.5 }
  }

  expect_failures = [var.machine]
}

run "an_image_that_is_none" {
  command = plan

  module {
    source = "../../modules/aws_machine"
  }

  variables {
    machine = { image = "debian" }
  }

  expect_failures = [var.machine]
}

run "a_vpc_that_is_none" {
  command = plan

  module {
    source = "../../modules/aws_machine"
  }

  variables {
    machine = { vpc_id = "main", subnet_id = "subnet-0123456789abcdef0" }
  }

  expect_failures = [var.machine]
}

run "a_subnet_that_is_none" {
  command = plan

  module {
    source = "../../modules/aws_machine"
  }

  variables {
    machine = { vpc_id = "vpc-0123456789abcdef0", subnet_id = "main" }
  }

  expect_failures = [var.machine]
}

run "a_vpc_without_a_subnet" {
  command = plan

  module {
    source = "../../modules/aws_machine"
  }

  variables {
    machine = { vpc_id = "vpc-0123456789abcdef0" }
  }

  expect_failures = [var.machine]
}

run "a_subnet_without_a_vpc" {
  command = plan

  module {
    source = "../../modules/aws_machine"
  }

  variables {
    machine = { subnet_id = "subnet-0123456789abcdef0" }
  }

  expect_failures = [var.machine]
}

run "ssh_from_no_network" {
  command = plan

  module {
    source = "../../modules/aws_machine"
  }

  variables {
    machine = { ssh_from = "office" }
  }

  expect_failures = [var.machine]
}

run "ssh_from_the_whole_world" {
  command = plan

  module {
    source = "../../modules/aws_machine"
  }

  variables {
    machine = { ssh_from = "0.0.0.0/0" }
  }

  expect_failures = [var.machine]
}

run "ssh_from_a_network_wider_than_16" {
  command = plan

  module {
    source = "../../modules/aws_machine"
  }

  variables {
    machine = { ssh_from = "10.0.0.0/15" }
  }

  expect_failures = [var.machine]
}

run "ssh_from_a_hosts_address" {
  command = plan

  module {
    source = "../../modules/aws_machine"
  }

  variables {
    machine = { ssh_from = "198.51.100.7/24" }
  }

  expect_failures = [var.machine]
}

run "a_way_out_to_no_network" {
  command = plan

  module {
    source = "../../modules/aws_machine"
  }

  variables {
    machine = { egress = [{ cidr = "dns.example.org", port = 53, description = "DNS" }] }
  }

  expect_failures = [var.machine]
}

run "a_way_out_to_no_port" {
  command = plan

  module {
    source = "../../modules/aws_machine"
  }

  variables {
    machine = { egress = [{ cidr = "198.51.100.7/32", port = 0, description = "DNS" }] }
  }

  expect_failures = [var.machine]
}

run "a_way_out_by_an_unknown_protocol" {
  command = plan

  module {
    source = "../../modules/aws_machine"
  }

  variables {
    machine = { egress = [{ cidr = "198.51.100.7/32", port = 53, protocol = "all", description = "DNS" }] }
  }

  expect_failures = [var.machine]
}

run "a_way_out_without_a_description" {
  command = plan

  module {
    source = "../../modules/aws_machine"
  }

  variables {
    machine = { egress = [{ cidr = "198.51.100.7/32", port = 53, description = "" }] }
  }

  expect_failures = [var.machine]
}

run "a_way_out_that_stands_there_twice" {
  command = plan

  module {
    source = "../../modules/aws_machine"
  }

  variables {
    machine = { egress = [{ cidr = "198.51.100.7/32", port = 53, description = "DNS" }, { cidr = "198.51.100.7/32", port = 53, description = "DNS" }] }
  }

  expect_failures = [var.machine]
}

run "a_site_whose_every_value_is_none" {
  command = plan

  module {
    source = "../../modules/aws_site"
  }

  variables {
    machine          = { vpc_id = "vpc-0123456789abcdef0", subnet_id = "subnet-0123456789abcdef0" }
    outbound_address = "nat"
    data_path        = "srv/hospital"
    labels           = { "my region" = "north" }
    node_config      = { "a.b" = "1" }
  }

  expect_failures = [var.outbound_address, var.data_path, var.labels, var.node_config]
}

run "template_markers_and_an_outbound_address_in_a_network_of_ours" {
  command = plan

  module {
    source = "../../modules/aws_site"
  }

  variables {
    outbound_address = "198.51.100.7"
    data_path        = "/srv/{{ x }}"
    labels           = { region = "{{ lookup('pipe', 'id') }}" }
    node_config      = { batch = "{% raw %}" }
  }

  expect_failures = [var.outbound_address, var.data_path, var.labels, var.node_config]
}

run "a_label_that_is_null_and_a_node_config_with_the_data_path" {
  command = plan

  module {
    source = "../../modules/aws_site"
  }

  variables {
    labels      = { region = null }
    node_config = { data-path = "/srv" }
  }

  expect_failures = [var.labels, var.node_config]
}

run "a_node_config_with_a_quote" {
  command = plan

  module {
    source = "../../modules/aws_site"
  }

  variables {
    node_config = { batch = "\"" }
  }

  expect_failures = [var.node_config]
}

run "a_site_that_is_no_host_name" {
  command = plan

  module {
    source = "../../modules/aws_site"
  }

  variables {
    name = "Hospital_A"
  }

  expect_failures = [var.name]
}

run "a_site_with_a_reserved_name" {
  command = plan

  module {
    source = "../../modules/aws_site"
  }

  variables {
    name = "localhost"
  }

  expect_failures = [var.name]
}

run "a_coordinator_that_is_no_host_name" {
  command = plan

  module {
    source = "../../modules/aws_coordinator"
  }

  variables {
    name = "Centre_1"
  }

  expect_failures = [var.name]
}

run "a_gateway_at_no_port" {
  command = plan

  module {
    source = "../../modules/aws_coordinator"
  }

  variables {
    gateway_port = 70000
  }

  expect_failures = [var.gateway_port]
}

run "a_coordinator_with_a_reserved_name" {
  command = plan

  module {
    source = "../../modules/aws_coordinator"
  }

  variables {
    name = "supernode"
  }

  expect_failures = [var.name]
}
