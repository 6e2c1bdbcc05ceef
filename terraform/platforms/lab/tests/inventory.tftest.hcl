# What the platform makes of its variables. Nothing is applied: hosts are made by the tests of the Python package.

variables {
  federation     = "lab"
  federation_dir = abspath("tests/federation") # holds nothing but a public key
}

run "a_site_needs_no_more_than_a_name" {
  command = plan

  variables {
    sites = { hospital-a = {}, hospital-b = {} }
  }

  assert {
    condition     = output.inventory.schema == 1
    error_message = "The schema version is what Python checks first."
  }
  assert {
    condition     = output.inventory.coordinator.address == "10.77.0.10"
    error_message = "The coordinator has the network's tenth address."
  }
  assert {
    condition     = toset(keys(output.inventory.coordinator)) == toset(["name", "address", "port", "user", "host_key", "python"])
    error_message = "The coordinator's keys are the contract's."
  }
  assert {
    condition = alltrue([for site in values(output.inventory.sites) :
      toset(keys(site)) == toset(["address", "port", "user", "host_key", "python", "labels", "node_config", "data_path"])
    ])
    error_message = "A site's keys are the contract's."
  }
  assert {
    condition     = output.inventory.sites["hospital-a"].data_path == "/srv/hospital"
    error_message = "A site sees its data at /srv/hospital."
  }
  assert {
    condition     = local.data["hospital-a"] == "${var.federation_dir}/data/hospital-a"
    error_message = "A site's data is in the federation's folder."
  }
}

run "what_is_monitored_is_told" {
  command = plan

  variables {
    sites     = { hospital-a = {}, hospital-b = {} }
    monitored = ["coordinator", "hospital-a"]
  }

  assert {
    condition     = output.inventory.monitoring == tolist(["coordinator", "hospital-a"])
    error_message = "The hosts of the group monitoring are those that were named."
  }
}

run "a_site_keeps_its_address_when_others_come_and_go" {
  command = plan

  variables {
    sites = { aachen = {}, hospital-b = {}, hospital-z = {} }
  }

  assert {
    condition     = output.inventory.sites["hospital-b"].address == run.a_site_needs_no_more_than_a_name.inventory.sites["hospital-b"].address
    error_message = "An address must depend on the site's name alone."
  }
}

run "what_a_site_sets_is_what_it_gets" {
  command = plan

  variables {
    network     = "10.78.0.0/24"
    coordinator = { name = "centre", address = "10.78.0.2" }
    sites = {
      hospital-a = {
        address     = "10.78.0.7"
        data        = "secrets"
        labels      = { region = "north" }
        node_config = { partition-id = "3" }
      }
      hospital-b = { data = "/srv" }
    }
  }

  assert {
    condition     = output.inventory.coordinator.address == "10.78.0.2"
    error_message = "The coordinator has the address that was set."
  }
  assert {
    condition     = output.inventory.sites["hospital-a"].address == "10.78.0.7"
    error_message = "The site has the address that was set."
  }
  assert {
    condition     = output.inventory.sites["hospital-a"].labels == tomap({ region = "north" })
    error_message = "Labels pass unchanged."
  }
  assert {
    condition     = output.inventory.sites["hospital-a"].node_config == tomap({ partition-id = "3" })
    error_message = "Node config passes unchanged."
  }
  assert {
    condition     = local.data["hospital-a"] == "${var.federation_dir}/secrets" && local.data["hospital-b"] == "/srv"
    error_message = "A data folder is relative to the federation's, unless it is absolute."
  }
  assert {
    condition     = cidrhost("${output.inventory.sites["hospital-b"].address}/24", 0) == "10.78.0.0"
    error_message = "A derived address is inside a small network too."
  }
}

run "fifty_sites_have_fifty_addresses" {
  command = plan

  variables {
    sites = { for number in range(50) : "hospital-${number}" => {} }
  }

  assert {
    condition     = length(toset([for site in values(output.inventory.sites) : site.address])) == 50
    error_message = "Derived addresses must differ."
  }
}
