# Every way to get a variable wrong is refused before anything is made. That the messages name the bad key is tested
# in Python, where they can be read.

variables {
  federation     = "lab"
  federation_dir = abspath("tests/federation")
}

run "a_federation_that_is_no_host_name" {
  command = plan

  variables {
    federation = "My_Federation"
  }

  expect_failures = [var.federation]
}

run "a_relative_federation_folder" {
  command = plan

  variables {
    federation_dir      = "inventories/lab"
    ssh_public_key_file = abspath("tests/federation/secrets/ssh/id_ed25519.pub")
  }

  expect_failures = [var.federation_dir]
}

run "a_missing_login_key" {
  command = plan

  variables {
    ssh_public_key_file = "/nonexistent.pub"
  }

  expect_failures = [var.ssh_public_key_file]
}

run "an_unknown_suite" {
  command = plan

  variables {
    suite = "sid"
  }

  expect_failures = [var.suite]
}

run "a_network_that_is_none" {
  command = plan

  variables {
    network = "lab"
  }

  expect_failures = [var.network]
}

run "a_network_with_too_few_addresses" {
  command = plan

  variables {
    network = "10.77.0.0/28"
  }

  expect_failures = [var.network]
}

run "a_network_that_is_a_hosts_address" {
  command = plan

  variables {
    network = "10.77.0.5/16"
  }

  expect_failures = [var.network]
}

run "a_coordinator_that_is_no_host_name" {
  command = plan

  variables {
    coordinator = { name = "Centre_1" }
  }

  expect_failures = [var.coordinator]
}

run "a_coordinator_with_a_reserved_name" {
  command = plan

  variables {
    coordinator = { name = "supernode" }
  }

  expect_failures = [var.coordinator]
}

run "a_coordinator_outside_the_network" {
  command = plan

  variables {
    coordinator = { address = "10.78.0.10" }
  }

  expect_failures = [output.inventory]
}

run "a_coordinator_at_this_machines_address" {
  command = plan

  variables {
    coordinator = { address = "10.77.0.1" }
  }

  expect_failures = [output.inventory]
}

run "a_site_that_is_null" {
  command = plan

  variables {
    sites = { hospital-a = null }
  }

  expect_failures = [var.sites]
}

run "a_site_that_is_no_host_name" {
  command = plan

  variables {
    sites = { Hospital_A = {} }
  }

  expect_failures = [var.sites]
}

run "a_site_with_too_long_a_name" {
  command = plan

  variables {
    sites = { (join("", [for number in range(33) : "a"])) = {} }
  }

  expect_failures = [var.sites]
}

run "a_site_with_a_reserved_name" {
  command = plan

  variables {
    sites = { localhost = {} }
  }

  expect_failures = [var.sites]
}

run "a_site_with_the_coordinators_name" {
  command = plan

  variables {
    sites = { coordinator = {} }
  }

  expect_failures = [var.sites]
}

run "a_site_with_empty_data" {
  command = plan

  variables {
    sites = { hospital-a = { data = " " } }
  }

  expect_failures = [var.sites]
}

run "a_label_that_is_no_key" {
  command = plan

  variables {
    sites = { hospital-a = { labels = { "my region" = "north" } } }
  }

  expect_failures = [var.sites]
}

run "a_label_that_is_null" {
  command = plan

  variables {
    sites = { hospital-a = { labels = { region = null } } }
  }

  expect_failures = [var.sites]
}

run "a_label_with_a_template_marker" {
  command = plan

  variables {
    sites = { hospital-a = { labels = { region = "{{ lookup('pipe', 'id') }}" } } }
  }

  expect_failures = [var.sites]
}

run "a_node_config_that_is_no_key" {
  command = plan

  variables {
    sites = { hospital-a = { node_config = { "a.b" = "1" } } }
  }

  expect_failures = [var.sites]
}

run "a_node_config_with_the_data_path" {
  command = plan

  variables {
    sites = { hospital-a = { node_config = { data-path = "/srv" } } }
  }

  expect_failures = [var.sites]
}

run "a_node_config_with_a_template_marker" {
  command = plan

  variables {
    sites = { hospital-a = { node_config = { batch = "{% raw %}" } } }
  }

  expect_failures = [var.sites]
}

run "a_node_config_with_a_quote" {
  command = plan

  variables {
    sites = { hospital-a = { node_config = { batch = "\"" } } }
  }

  expect_failures = [var.sites]
}

run "a_data_folder_with_a_template_marker" {
  command = plan

  variables {
    sites = { hospital-a = { data = "/srv/{{ x }}" } }
  }

  expect_failures = [var.sites]
}

run "a_site_with_an_address_that_is_none" {
  command = plan

  variables {
    sites = { hospital-a = { address = "first" } }
  }

  expect_failures = [output.inventory]
}

run "a_site_outside_the_network" {
  command = plan

  variables {
    sites = { hospital-a = { address = "10.78.0.7" } }
  }

  expect_failures = [output.inventory]
}

run "a_site_at_this_machines_address" {
  command = plan

  variables {
    sites = { hospital-a = { address = "10.77.0.1" } }
  }

  expect_failures = [output.inventory]
}

run "a_site_at_the_coordinators_address" {
  command = plan

  variables {
    sites = { hospital-a = { address = "10.77.0.10" } }
  }

  expect_failures = [output.inventory]
}

run "two_sites_at_one_address" {
  command = plan

  variables {
    sites = { hospital-a = { address = "10.77.0.7" }, hospital-b = { address = "10.77.0.7" } }
  }

  expect_failures = [output.inventory]
}

run "a_data_folder_that_does_not_exist" {
  command = plan

  variables {
    sites = { hospital-a = { data = "/nonexistent/data" } }
  }

  expect_failures = [output.inventory]
}

run "a_monitored_machine_that_is_none" {
  command = plan

  variables {
    sites     = { hospital-a = {} }
    monitored = ["coordinator", "hospital-b"]
  }

  expect_failures = [var.monitored]
}
