output "vpc_id" {
  description = "The network's id."
  value       = aws_vpc.this.id
}

output "subnet_id" {
  description = "Id of the subnet for the machines; known once its way to the internet is there."
  value       = aws_subnet.this.id
  depends_on  = [aws_route.out, aws_route_table_association.this]
}

output "session_manager" {
  description = "What a machine must reach for Session Manager: the endpoints' security group and S3's prefix list. Null without the endpoints."
  value = var.session_manager ? {
    security_group_id = aws_security_group.endpoints[0].id
    prefix_list_id    = aws_vpc_endpoint.s3[0].prefix_list_id
  } : null
  depends_on = [aws_vpc_endpoint.session_manager, aws_vpc_security_group_ingress_rule.endpoints]
}
