module "machine" {
  source = "../aws_machine"

  federation     = var.federation
  name           = var.name
  ssh_public_key = var.ssh_public_key
  network        = var.network
  monitoring     = var.monitoring
  machine        = var.machine
}

# Apart from the machine: the coordinator knows the address before there is one, and a machine made afresh keeps it.
resource "aws_eip" "this" {
  count = var.outbound_address == null ? 1 : 0

  domain = "vpc"
  tags   = { Name = "flowerbed-${var.federation}-${var.name}" }
}

resource "aws_eip_association" "this" {
  count = var.outbound_address == null ? 1 : 0

  allocation_id = aws_eip.this[0].allocation_id
  instance_id   = module.machine.instance.id
}

resource "aws_vpc_security_group_egress_rule" "gateway" {
  security_group_id = module.machine.security_group_id
  description       = "The coordinator's gateway"
  cidr_ipv4         = "${var.gateway.address}/32"
  ip_protocol       = "tcp"
  from_port         = var.gateway.port
  to_port           = var.gateway.port
}
