output "inventory" {
  description = "The federation's machines for Ansible: schema version, coordinator and sites. It holds no secret."
  value = {
    schema = 1
    coordinator = {
      name     = module.coordinator.name
      address  = module.coordinator.address
      port     = module.coordinator.port
      user     = module.coordinator.user
      host_key = module.coordinator.host_key
      python   = module.coordinator.python
    }
    sites = { for name, site in var.sites : name => {
      address     = module.site[name].address
      port        = module.site[name].port
      user        = module.site[name].user
      host_key    = module.site[name].host_key
      python      = module.site[name].python
      labels      = site.labels
      node_config = site.node_config
      data_path   = module.site[name].data_path
    } }
    monitoring = var.monitored
  }

  precondition {
    condition     = length(local.outside) == 0
    error_message = "address: ${join(", ", local.outside)} is no IPv4 address of the network ${var.network}: choose another one."
  }

  precondition {
    condition     = length(local.reserved) == 0
    error_message = "address: ${join(", ", local.reserved)} is reserved; the network's first address is this machine's own: choose another one."
  }

  precondition {
    condition     = length(local.shared) == 0
    error_message = "address: ${join(", ", local.shared)}: set address of one of them to a free one in ${var.network}."
  }

  precondition {
    condition     = length(local.no_folder) == 0
    error_message = "data: ${join(", ", local.no_folder)} is no folder: make it, or correct data."
  }
}
