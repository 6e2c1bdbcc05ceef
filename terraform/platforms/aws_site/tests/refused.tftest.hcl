# Every way to get a variable wrong is refused before anything is made. That the messages name the bad key is tested
# in Python, where they can be read.

mock_provider "aws" {}

variables {
  federation     = "aws"
  federation_dir = abspath("tests/federation")
  name           = "hospital-a"
  gateway        = { address = "198.51.100.7" }
}

run "names_and_values_that_are_none" {
  command = plan

  variables {
    federation          = "My_Federation"
    federation_dir      = "inventories/aws"
    ssh_public_key_file = abspath("tests/federation/secrets/ssh/id_ed25519.pub")
    region              = "Frankfurt"
    gateway             = { address = "gateway.example.org" }
    network             = { cidr = "here" }
  }

  expect_failures = [var.federation, var.federation_dir, var.region, var.gateway, var.network]
}

run "a_missing_login_key_a_gateway_at_no_port_and_a_network_that_is_a_hosts_address" {
  command = plan

  variables {
    ssh_public_key_file = "/nonexistent.pub"
    gateway             = { address = "198.51.100.7", port = 0 }
    network             = { cidr = "10.81.0.7/24" }
  }

  expect_failures = [var.ssh_public_key_file, var.gateway, var.network]
}
