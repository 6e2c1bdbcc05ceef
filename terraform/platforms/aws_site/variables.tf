variable "federation" {
  description = "Name of the federation: lowercase letters, digits and inner hyphens, 32 at most."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$", var.federation))
    error_message = "federation: '${var.federation}' is no host name: use lowercase letters, digits and inner hyphens, 32 at most."
  }
}

variable "federation_dir" {
  description = "Absolute path of the federation's folder, with secrets/ and .state/."
  type        = string

  validation {
    condition     = startswith(var.federation_dir, "/") && !can(regex("[[:cntrl:]]|\\{[{%#]", var.federation_dir))
    error_message = "federation_dir: '${var.federation_dir}' is no absolute path."
  }
}

variable "ssh_public_key_file" {
  description = "Public key that may log in to the machine. Default: secrets/ssh/id_ed25519.pub of the federation."
  type        = string
  default     = null

  validation {
    condition     = can(regex("^(ssh-ed25519|ssh-rsa) [^ ]+", file(coalesce(var.ssh_public_key_file, "${var.federation_dir}/secrets/ssh/id_ed25519.pub"))))
    error_message = "ssh_public_key_file: '${coalesce(var.ssh_public_key_file, "${var.federation_dir}/secrets/ssh/id_ed25519.pub")}' holds no ed25519 or RSA public key, which are what Amazon takes: ssh-keygen -t ed25519 -N '' -f secrets/ssh/id_ed25519 in the federation's folder makes one."
  }
}

variable "monitoring" {
  description = "Measure the machine every minute instead of every five; Amazon charges for it."
  type        = bool
  default     = false
}

variable "region" {
  description = "The region of the hospital's machine."
  type        = string
  default     = "eu-central-1"

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region: '${var.region}' is no region such as eu-central-1."
  }
}

variable "gateway" {
  description = "What the consortium tells the hospital: IPv4 address and port of the coordinator's gateway."
  type = object({
    address = string
    port    = optional(number, 443)
  })

  validation {
    condition     = can(cidrnetmask("${var.gateway.address}/32")) && !startswith(var.gateway.address, "0.")
    error_message = "gateway.address: '${var.gateway.address}' is no IPv4 address such as 198.51.100.7."
  }

  validation {
    condition     = try(var.gateway.port >= 1 && var.gateway.port <= 65535 && floor(var.gateway.port) == var.gateway.port, false)
    error_message = "gateway.port: ${var.gateway.port} is no port from 1 to 65535."
  }
}

variable "name" {
  description = "The site's name, the same as the consortium uses: lowercase letters, digits and inner hyphens, 32 at most."
  type        = string
}

variable "network" {
  description = "The network that is made for the machine: its `cidr`, and its `availability_zone` (default: Amazon chooses)."
  type = object({
    cidr              = optional(string, "10.81.0.0/24")
    availability_zone = optional(string)
  })
  default  = {}
  nullable = false

  validation {
    condition     = can(cidrnetmask(var.network.cidr)) && try(tonumber(split("/", var.network.cidr)[1]) >= 16 && tonumber(split("/", var.network.cidr)[1]) <= 28, false)
    error_message = "network.cidr: '${var.network.cidr}' is no IPv4 network from /16 to /28, such as 10.81.0.0/24."
  }

  validation {
    condition     = try(cidrhost(var.network.cidr, 0) == split("/", var.network.cidr)[0], true)
    error_message = "network.cidr: '${var.network.cidr}' is a host's address: write ${try("${cidrhost(var.network.cidr, 0)}/${split("/", var.network.cidr)[1]}", "")}."
  }
}

variable "site" {
  description = <<-EOT
    The machine, all of it optional: `instance_type` (default: t3.medium, with `gpu` g4dn.xlarge), `gpu`: the machine must
    have one, `disk_size` in GB, `os`: debian-12, debian-13 or ubuntu-24.04, `image`: an AMI of this system instead of its
    newest one;
    `vpc_id` and `subnet_id`: an existing network, `outbound_address`: the address that this network shows to the outside,
    where it is not the machine's own;
    `ssh_from`: the one network that SSH is open to (default: none, Session Manager is the way in); `egress`: what the
    site may reach beside the coordinator's gateway;
    `data_path`: the folder on the machine with the site's data; `labels`: what a driver chooses sites by; `node_config`:
    what the apps at this site are told.
  EOT
  type = object({
    instance_type    = optional(string)
    gpu              = optional(bool)
    disk_size        = optional(number)
    os               = optional(string)
    image            = optional(string)
    vpc_id           = optional(string)
    subnet_id        = optional(string)
    outbound_address = optional(string)
    ssh_from         = optional(string)
    egress = optional(list(object({
      cidr        = string
      port        = number
      protocol    = optional(string)
      description = string
    })))
    data_path   = optional(string)
    labels      = optional(map(string))
    node_config = optional(map(string))
  })
  default  = {}
  nullable = false
}
