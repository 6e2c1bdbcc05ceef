output "gateway" {
  description = "The gateway's IPv4 address and port: all that a hospital needs to know."
  value       = { address = aws_eip.this.public_ip, port = var.gateway_port }
}

output "inventory" {
  description = "The coordinator as contract 1 describes it."
  value = {
    name            = var.name
    address         = aws_eip.this.public_ip
    port            = 22
    user            = module.machine.user
    host_key        = "" # made at the first boot: the driver reads it from the machine's console
    instance        = module.machine.instance
    session_manager = module.machine.session_manager
    python          = module.machine.python
  }
}
