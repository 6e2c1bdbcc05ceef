output "address" {
  description = "IPv4 address that the coordinator sees the site come from."
  value       = coalesce(var.outbound_address, one(aws_eip.this[*].public_ip))
}

output "inventory" {
  description = "The site as contract 1 describes it: how it is reached, and what the federation knows about it."
  value = {
    address         = var.outbound_address == null ? aws_eip.this[0].public_ip : module.machine.private_address
    port            = 22
    user            = module.machine.user
    host_key        = "" # made at the first boot: the driver reads it from the machine's console
    instance        = module.machine.instance
    session_manager = module.machine.session_manager
    python          = module.machine.python
    labels          = var.labels
    node_config     = var.node_config
    data_path       = var.data_path == null ? "" : var.data_path
  }
}
