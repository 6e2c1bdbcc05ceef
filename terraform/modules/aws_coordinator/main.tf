module "machine" {
  source = "../aws_machine"

  federation     = var.federation
  name           = var.name
  ssh_public_key = var.ssh_public_key
  network        = var.network
  monitoring     = var.monitoring
  machine        = var.machine
}

# Apart from the machine: the sites know the address before there is one, and a machine made afresh keeps it.
resource "aws_eip" "this" {
  domain = "vpc"
  tags   = { Name = "flowerbed-${var.federation}-${var.name}" }
}

resource "aws_eip_association" "this" {
  allocation_id = aws_eip.this.allocation_id
  instance_id   = module.machine.instance.id
}

resource "aws_vpc_security_group_ingress_rule" "gateway" {
  for_each = var.clients

  security_group_id = module.machine.security_group_id
  description       = each.value.description
  cidr_ipv4         = "${each.value.address}/32"
  ip_protocol       = "tcp"
  from_port         = var.gateway_port
  to_port           = var.gateway_port
}
