output "inventory" {
  description = "The federation's machines for Ansible: schema version, coordinator and sites. It holds no secret."
  value = {
    schema      = 1
    coordinator = module.coordinator.inventory
    sites       = { for name, site in local.sites : name => site.inventory }
    monitoring  = var.monitored
  }

  precondition {
    condition     = length(local.overlaps) == 0
    error_message = "networks: ${join("; ", local.overlaps)} overlap: give one of them a range of its own."
  }
}

output "gateway" {
  description = "The gateway's IPv4 address and port, for hospitals that run aws_site or a machine of their own."
  value       = module.coordinator.gateway
}
