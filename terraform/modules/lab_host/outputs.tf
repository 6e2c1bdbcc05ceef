output "name" {
  description = "The host's name."
  value       = terraform_data.host.output.NAME
}

output "address" {
  description = "The host's IPv4 address."
  value       = var.address
}

output "port" {
  description = "Port of the SSH server."
  value       = 22
}

output "user" {
  description = "User who may log in by the lab's SSH key."
  value       = "root"
}

output "host_key" {
  description = "Public key line of the SSH server, known once the host was made."
  # The path goes through the resource, so that the file is read after the host wrote it; a plan never fails for it.
  value = try(trimspace(file("${var.keys_dir}/${terraform_data.host.output.NAME}.pub")), "")
}

output "python" {
  description = "Minor version of the host's own Python, which decides its release."
  value       = { bookworm = "3.11", trixie = "3.13" }[var.suite]
}

output "data_path" {
  description = "Folder on the host where the site's data is; empty if it has none."
  value       = var.data == null ? "" : "/srv/hospital"
}
