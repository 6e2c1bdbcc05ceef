# What the modules themselves refuse; both platforms use them, so that a rule and its message stand in one place.
# Their `tests/variables` is variables.tf alone: without a provider a run takes no time.

variables {
  federation     = "aws"
  federation_dir = abspath("tests/federation")
  name           = "hospital-a"
  ssh_public_key = "ssh-ed25519 AAAA"
  gateway        = { address = "198.51.100.7" }
}

run "an_unknown_system" {
  command = plan

  module {
    source = "../../modules/aws_machine/tests/variables"
  }

  variables {
    machine = { os = "windows" }
  }

  expect_failures = [var.machine]
}

run "an_instance_type_that_is_none" {
  command = plan

  module {
    source = "../../modules/aws_machine/tests/variables"
  }

  variables {
    machine = { instance_type = "big" }
  }

  expect_failures = [var.machine]
}

run "a_gpu_that_the_instance_type_lacks" {
  command = plan

  module {
    source = "../../modules/aws_machine/tests/variables"
  }

  variables {
    machine = { gpu = true, instance_type = "m7i.large" }
  }

  expect_failures = [var.machine]
}

run "a_disk_that_is_too_small" {
  command = plan

  module {
    source = "../../modules/aws_machine/tests/variables"
  }

  variables {
    machine = { disk_size = 4 }
  }

  expect_failures = [var.machine]
}

run "a_disk_of_half_a_gigabyte" {
  command = plan

  module {
    source = "../../modules/aws_machine/tests/variables"
  }

  variables {
    machine = { disk_size = 30.5 }
  }

  expect_failures = [var.machine]
}

run "an_image_that_is_none" {
  command = plan

  module {
    source = "../../modules/aws_machine/tests/variables"
  }

  variables {
    machine = { image = "debian" }
  }

  expect_failures = [var.machine]
}

run "a_vpc_that_is_none" {
  command = plan

  module {
    source = "../../modules/aws_machine/tests/variables"
  }

  variables {
    machine = { vpc_id = "main", subnet_id = "subnet-0123456789abcdef0" }
  }

  expect_failures = [var.machine]
}

run "a_subnet_that_is_none" {
  command = plan

  module {
    source = "../../modules/aws_machine/tests/variables"
  }

  variables {
    machine = { vpc_id = "vpc-0123456789abcdef0", subnet_id = "main" }
  }

  expect_failures = [var.machine]
}

run "a_vpc_without_a_subnet" {
  command = plan

  module {
    source = "../../modules/aws_machine/tests/variables"
  }

  variables {
    machine = { vpc_id = "vpc-0123456789abcdef0" }
  }

  expect_failures = [var.machine]
}

run "a_subnet_without_a_vpc" {
  command = plan

  module {
    source = "../../modules/aws_machine/tests/variables"
  }

  variables {
    machine = { subnet_id = "subnet-0123456789abcdef0" }
  }

  expect_failures = [var.machine]
}

run "ssh_from_no_network" {
  command = plan

  module {
    source = "../../modules/aws_machine/tests/variables"
  }

  variables {
    machine = { ssh_from = "office" }
  }

  expect_failures = [var.machine]
}

run "ssh_from_the_whole_world" {
  command = plan

  module {
    source = "../../modules/aws_machine/tests/variables"
  }

  variables {
    machine = { ssh_from = "0.0.0.0/0" }
  }

  expect_failures = [var.machine]
}

run "ssh_from_a_network_wider_than_16" {
  command = plan

  module {
    source = "../../modules/aws_machine/tests/variables"
  }

  variables {
    machine = { ssh_from = "10.0.0.0/15" }
  }

  expect_failures = [var.machine]
}

run "ssh_from_a_hosts_address" {
  command = plan

  module {
    source = "../../modules/aws_machine/tests/variables"
  }

  variables {
    machine = { ssh_from = "198.51.100.7/24" }
  }

  expect_failures = [var.machine]
}

run "a_way_out_to_no_network" {
  command = plan

  module {
    source = "../../modules/aws_machine/tests/variables"
  }

  variables {
    machine = { egress = [{ cidr = "dns.example.org", port = 53, description = "DNS" }] }
  }

  expect_failures = [var.machine]
}

run "a_way_out_to_no_port" {
  command = plan

  module {
    source = "../../modules/aws_machine/tests/variables"
  }

  variables {
    machine = { egress = [{ cidr = "198.51.100.7/32", port = 0, description = "DNS" }] }
  }

  expect_failures = [var.machine]
}

run "a_way_out_by_an_unknown_protocol" {
  command = plan

  module {
    source = "../../modules/aws_machine/tests/variables"
  }

  variables {
    machine = { egress = [{ cidr = "198.51.100.7/32", port = 53, protocol = "all", description = "DNS" }] }
  }

  expect_failures = [var.machine]
}

run "a_way_out_without_a_description" {
  command = plan

  module {
    source = "../../modules/aws_machine/tests/variables"
  }

  variables {
    machine = { egress = [{ cidr = "198.51.100.7/32", port = 53, description = "" }] }
  }

  expect_failures = [var.machine]
}

run "a_way_out_that_stands_there_twice" {
  command = plan

  module {
    source = "../../modules/aws_machine/tests/variables"
  }

  variables {
    machine = { egress = [{ cidr = "198.51.100.7/32", port = 53, description = "DNS" }, { cidr = "198.51.100.7/32", port = 53, description = "DNS" }] }
  }

  expect_failures = [var.machine]
}

run "a_site_that_is_no_host_name" {
  command = plan

  module {
    source = "../../modules/aws_site/tests/variables"
  }

  variables {
    name = "Hospital_A"
  }

  expect_failures = [var.name]
}

run "a_site_with_too_long_a_name" {
  command = plan

  module {
    source = "../../modules/aws_site/tests/variables"
  }

  variables {
    name = join("", [for number in range(33) : "a"])
  }

  expect_failures = [var.name]
}

run "a_site_with_a_reserved_name" {
  command = plan

  module {
    source = "../../modules/aws_site/tests/variables"
  }

  variables {
    name = "localhost"
  }

  expect_failures = [var.name]
}

run "an_outbound_address_that_is_none" {
  command = plan

  module {
    source = "../../modules/aws_site/tests/variables"
  }

  variables {
    machine          = { vpc_id = "vpc-0123456789abcdef0", subnet_id = "subnet-0123456789abcdef0" }
    outbound_address = "nat"
  }

  expect_failures = [var.outbound_address]
}

run "an_outbound_address_in_a_network_of_ours" {
  command = plan

  module {
    source = "../../modules/aws_site/tests/variables"
  }

  variables {
    outbound_address = "198.51.100.7"
  }

  expect_failures = [var.outbound_address]
}

run "a_relative_data_path" {
  command = plan

  module {
    source = "../../modules/aws_site/tests/variables"
  }

  variables {
    data_path = "srv/hospital"
  }

  expect_failures = [var.data_path]
}

run "a_data_path_with_a_template_marker" {
  command = plan

  module {
    source = "../../modules/aws_site/tests/variables"
  }

  variables {
    data_path = "/srv/{{ x }}"
  }

  expect_failures = [var.data_path]
}

run "a_label_that_is_no_key" {
  command = plan

  module {
    source = "../../modules/aws_site/tests/variables"
  }

  variables {
    labels = { "my region" = "north" }
  }

  expect_failures = [var.labels]
}

run "a_label_that_is_null" {
  command = plan

  module {
    source = "../../modules/aws_site/tests/variables"
  }

  variables {
    labels = { region = null }
  }

  expect_failures = [var.labels]
}

run "a_label_with_a_template_marker" {
  command = plan

  module {
    source = "../../modules/aws_site/tests/variables"
  }

  variables {
    labels = { region = "{{ lookup('pipe', 'id') }}" }
  }

  expect_failures = [var.labels]
}

run "a_node_config_that_is_no_key" {
  command = plan

  module {
    source = "../../modules/aws_site/tests/variables"
  }

  variables {
    node_config = { "a.b" = "1" }
  }

  expect_failures = [var.node_config]
}

run "a_node_config_with_the_data_path" {
  command = plan

  module {
    source = "../../modules/aws_site/tests/variables"
  }

  variables {
    node_config = { data-path = "/srv" }
  }

  expect_failures = [var.node_config]
}

run "a_node_config_with_a_template_marker" {
  command = plan

  module {
    source = "../../modules/aws_site/tests/variables"
  }

  variables {
    node_config = { batch = "{% raw %}" }
  }

  expect_failures = [var.node_config]
}

run "a_node_config_with_a_quote" {
  command = plan

  module {
    source = "../../modules/aws_site/tests/variables"
  }

  variables {
    node_config = { batch = "\"" }
  }

  expect_failures = [var.node_config]
}

run "a_coordinator_that_is_no_host_name" {
  command = plan

  module {
    source = "../../modules/aws_coordinator/tests/variables"
  }

  variables {
    name = "Centre_1"
  }

  expect_failures = [var.name]
}

run "a_coordinator_with_a_reserved_name" {
  command = plan

  module {
    source = "../../modules/aws_coordinator/tests/variables"
  }

  variables {
    name = "supernode"
  }

  expect_failures = [var.name]
}

run "a_gateway_at_no_port" {
  command = plan

  module {
    source = "../../modules/aws_coordinator/tests/variables"
  }

  variables {
    gateway_port = 70000
  }

  expect_failures = [var.gateway_port]
}
