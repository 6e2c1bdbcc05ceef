# Every way to get a variable wrong is refused before anything is made. That the messages name the bad key is tested
# in Python, where they can be read. `tests/variables` is variables.tf alone: without a provider a run takes no time.

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
  federation_dir = abspath("tests/federation")
}

run "a_federation_that_is_no_host_name" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    federation = "My_Federation"
  }

  expect_failures = [var.federation]
}

run "a_relative_federation_folder" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    federation_dir      = "inventories/aws"
    ssh_public_key_file = abspath("tests/federation/secrets/ssh/id_ed25519.pub")
  }

  expect_failures = [var.federation_dir]
}

run "a_missing_login_key" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    ssh_public_key_file = "/nonexistent.pub"
  }

  expect_failures = [var.ssh_public_key_file]
}

run "a_coordinator_in_no_region" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    coordinator = { region = "Frankfurt" }
  }

  expect_failures = [var.coordinator]
}

run "a_coordinators_network_that_is_too_wide" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    coordinator = { network = "10.0.0.0/8" }
  }

  expect_failures = [var.coordinator]
}

run "a_coordinators_network_that_is_a_hosts_address" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    coordinator = { network = "10.80.0.7/24" }
  }

  expect_failures = [var.coordinator]
}

run "a_network_in_a_region_without_a_file" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    networks = { us-east-1 = { cidr = "10.90.0.0/16" } }
  }

  expect_failures = [var.networks]
}

run "a_network_that_is_none" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    networks = { eu-west-1 = { cidr = "here" } }
  }

  expect_failures = [var.networks]
}

run "a_network_that_is_a_hosts_address" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    networks = { eu-west-1 = { cidr = "10.90.0.7/16" } }
  }

  expect_failures = [var.networks]
}

run "two_regions_with_one_network" {
  command = plan

  variables {
    networks = { eu-west-1 = { cidr = "10.81.3.0/24" } }
  }

  expect_failures = [output.inventory]
}

run "a_client_that_is_no_host_name" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    gateway_clients = { "Clinic 1" = "198.51.100.7" }
  }

  expect_failures = [var.gateway_clients]
}

run "a_client_that_is_a_site" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    sites           = { hospital-a = {} }
    gateway_clients = { hospital-a = "198.51.100.7" }
  }

  expect_failures = [var.gateway_clients]
}

run "a_client_without_an_address" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    gateway_clients = { clinic = "0.0.0.0" }
  }

  expect_failures = [var.gateway_clients]
}

run "a_client_that_is_a_network" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    gateway_clients = { clinic = "198.51.100.0/24" }
  }

  expect_failures = [var.gateway_clients]
}

run "a_site_that_is_null" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    sites = { hospital-a = null }
  }

  expect_failures = [var.sites]
}

run "a_site_with_the_coordinators_name" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    sites = { coordinator = {} }
  }

  expect_failures = [var.sites]
}

run "a_site_in_a_region_without_a_file" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    sites = { hospital-a = { region = "us-east-1" } }
  }

  expect_failures = [var.sites]
}

run "a_monitored_machine_that_is_none" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    sites     = { hospital-a = {} }
    monitored = ["coordinator", "hospital-b"]
  }

  expect_failures = [var.monitored]
}
