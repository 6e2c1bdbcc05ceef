locals {
  tags = { Name = "flowerbed-${var.federation}" }

  # By these Amazon's Systems Manager reaches a machine that has no way out to the internet.
  services = var.session_manager ? toset(["ssm", "ssmmessages", "ec2messages"]) : toset([])
}

data "aws_region" "here" {}

resource "aws_vpc" "this" {
  #checkov:skip=CKV2_AWS_11:Flow logs cost by the byte and tell who talks to whom: rules with one destination each leave little to log
  cidr_block           = var.cidr
  enable_dns_hostnames = true # names of the endpoints resolve to their addresses in this network
  tags                 = local.tags
}

# A machine that is given no security group would get this one: it lets nothing through.
resource "aws_default_security_group" "closed" {
  vpc_id = aws_vpc.this.id
  tags   = local.tags
}

resource "aws_internet_gateway" "this" {
  vpc_id = aws_vpc.this.id
  tags   = local.tags
}

resource "aws_subnet" "this" {
  vpc_id            = aws_vpc.this.id
  cidr_block        = var.cidr
  availability_zone = var.availability_zone
  tags              = local.tags
}

resource "aws_route_table" "this" {
  vpc_id = aws_vpc.this.id
  tags   = local.tags
}

resource "aws_route" "out" {
  route_table_id         = aws_route_table.this.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.this.id
}

resource "aws_route_table_association" "this" {
  subnet_id      = aws_subnet.this.id
  route_table_id = aws_route_table.this.id
}

resource "aws_security_group" "endpoints" {
  count = var.session_manager ? 1 : 0

  name        = "flowerbed-${var.federation}-endpoints"
  description = "Session Manager endpoints"
  vpc_id      = aws_vpc.this.id
  tags        = local.tags
}

resource "aws_vpc_security_group_ingress_rule" "endpoints" {
  count = var.session_manager ? 1 : 0

  security_group_id = aws_security_group.endpoints[0].id
  description       = "Session Manager agents in this network"
  cidr_ipv4         = var.cidr
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_endpoint" "session_manager" {
  for_each = local.services

  vpc_id              = aws_vpc.this.id
  service_name        = "com.amazonaws.${data.aws_region.here.name}.${each.key}"
  vpc_endpoint_type   = "Interface"
  private_dns_enabled = true
  subnet_ids          = [aws_subnet.this.id]
  security_group_ids  = [aws_security_group.endpoints[0].id]
  tags                = local.tags
}

# Debian's images lack the Session Manager agent: Amazon's own bucket with it, and no other, is reached through this.
resource "aws_vpc_endpoint" "s3" {
  count = var.session_manager ? 1 : 0

  vpc_id          = aws_vpc.this.id
  service_name    = "com.amazonaws.${data.aws_region.here.name}.s3"
  route_table_ids = [aws_route_table.this.id]
  tags            = local.tags
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = "*"
      Action    = "s3:GetObject"
      Resource  = "arn:aws:s3:::amazon-ssm-${data.aws_region.here.name}/*"
    }]
  })
}
