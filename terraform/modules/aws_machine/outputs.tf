output "instance" {
  description = "The machine's id and region."
  value       = { id = aws_instance.this.id, region = data.aws_region.here.name }
}

output "private_address" {
  description = "The machine's IPv4 address in its subnet."
  value       = aws_instance.this.private_ip
}

output "security_group_id" {
  description = "Security group that holds every rule for the machine and for nothing else."
  value       = aws_security_group.this.id
}

output "user" {
  description = "User who may log in by the operator's SSH key."
  value       = local.system.user
}

output "python" {
  description = "Minor version of the system's own Python, which decides the machine's release."
  value       = local.system.python
}

output "session_manager" {
  description = "Whether Session Manager is the way in; SSH is otherwise."
  value       = local.session_manager
}
