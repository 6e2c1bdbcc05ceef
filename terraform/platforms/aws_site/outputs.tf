output "inventory" {
  description = "The hospital's machine for Ansible: schema version, the gateway that it reaches, and the one site. It holds no secret."
  value = {
    schema  = 1
    gateway = var.gateway
    sites   = { (var.name) = module.site.inventory }
  }
}

output "address" {
  description = "IPv4 address that the coordinator sees the site come from: what the hospital tells the consortium."
  value       = module.site.address
}
