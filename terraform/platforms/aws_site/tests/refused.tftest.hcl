# Every way to get a variable wrong is refused before anything is made. That the messages name the bad key is tested
# in Python, where they can be read. `tests/variables` is variables.tf alone: without a provider a run takes no time.

variables {
  federation     = "aws"
  federation_dir = abspath("tests/federation")
  name           = "hospital-a"
  gateway        = { address = "198.51.100.7" }
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

run "a_region_that_is_none" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    region = "Frankfurt"
  }

  expect_failures = [var.region]
}

run "a_gateway_that_is_a_name" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    gateway = { address = "gateway.example.org" }
  }

  expect_failures = [var.gateway]
}

run "a_gateway_at_no_port" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    gateway = { address = "198.51.100.7", port = 0 }
  }

  expect_failures = [var.gateway]
}

run "a_network_that_is_none" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    network = { cidr = "here" }
  }

  expect_failures = [var.network]
}

run "a_network_that_is_a_hosts_address" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    network = { cidr = "10.81.0.7/24" }
  }

  expect_failures = [var.network]
}
