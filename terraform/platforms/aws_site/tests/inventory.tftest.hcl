# What one hospital's machine is in its own account, with the provider's real schema: nothing is applied.

mock_provider "aws" {}

variables {
  federation     = "aws"
  federation_dir = abspath("tests/federation") # holds nothing but a public key
  name           = "hospital-a"
  gateway        = { address = "198.51.100.7" }
}

run "an_address_and_a_port_are_all_that_a_hospital_needs_to_be_told" {
  command = plan

  assert {
    condition     = output.inventory.schema == 1 && output.inventory.gateway == { address = "198.51.100.7", port = 443 }
    error_message = "The inventory names the gateway in the coordinator's place."
  }
  assert {
    condition     = toset(keys(output.inventory.sites["hospital-a"])) == toset(["address", "port", "user", "host_key", "instance", "session_manager", "python", "labels", "node_config", "data_path"])
    error_message = "A site's keys are the contract's."
  }
}

run "a_site_behind_the_hospitals_own_nat_tells_that_address" {
  command = plan

  variables {
    site = {
      vpc_id           = "vpc-0123456789abcdef0"
      subnet_id        = "subnet-0123456789abcdef0"
      outbound_address = "203.0.113.7"
      labels           = { region = "north" }
    }
  }

  assert {
    condition     = output.address == "203.0.113.7" && length(module.network) == 0
    error_message = "Neither a network nor an address is made where the hospital has them."
  }
  assert {
    condition     = output.inventory.sites["hospital-a"].labels == tomap({ region = "north" })
    error_message = "Labels pass unchanged."
  }
}
