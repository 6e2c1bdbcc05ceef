variable "federation" {
  description = "Name of the federation that the machine belongs to."
  type        = string
}

variable "name" {
  description = "The machine's name; messages about its values name it."
  type        = string
}

variable "ssh_public_key" {
  description = "The operator's public key line, which may log in."
  type        = string
}

variable "network" {
  description = "The network of aws_network for a machine that names no `vpc_id`: its outputs."
  type = object({
    vpc_id    = string
    subnet_id = string
    session_manager = optional(object({
      security_group_id = string
      prefix_list_id    = string
    }))
  })
  default = null
}

variable "monitoring" {
  description = "Measure the machine every minute instead of every five; Amazon charges for it."
  type        = bool
  default     = false
}

variable "machine" {
  description = <<-EOT
    The machine: `instance_type` (default: t3.medium, with `gpu` g4dn.xlarge); `gpu`: it must have one; `disk_size` in GB;
    `os`: debian-12, debian-13 or ubuntu-24.04; `image`: an AMI of this system instead of its newest one; `vpc_id` and
    `subnet_id`: an existing network; `ssh_from`: the one network that SSH is open to (default: none, Session Manager is
    the way in); `egress`: what the machine may reach beside what Flowerbed opens.
  EOT
  type = object({
    instance_type = optional(string)
    gpu           = optional(bool, false)
    disk_size     = optional(number, 30)
    os            = optional(string, "debian-12")
    image         = optional(string)
    vpc_id        = optional(string)
    subnet_id     = optional(string)
    ssh_from      = optional(string)
    egress = optional(list(object({
      cidr        = string
      port        = number
      protocol    = optional(string, "tcp")
      description = string
    })), [])
  })
  default  = {}
  nullable = false

  validation {
    condition     = contains(["debian-12", "debian-13", "ubuntu-24.04"], var.machine.os)
    error_message = "os of ${var.name}: '${var.machine.os}' is unknown: use debian-12, debian-13 or ubuntu-24.04."
  }

  validation {
    condition     = var.machine.instance_type == null || can(regex("^[a-z][a-z0-9-]*[0-9][a-z0-9-]*\\.[a-z0-9-]+$", var.machine.instance_type))
    error_message = "instance_type of ${var.name}: '${coalesce(var.machine.instance_type, "-")}' is none: use one such as t3.medium."
  }

  validation {
    condition     = !var.machine.gpu || can(regex("^(g|gr|p)[0-9]", coalesce(var.machine.instance_type, "g4dn.xlarge")))
    error_message = "instance_type of ${var.name}: '${coalesce(var.machine.instance_type, "-")}' has no GPU: use one such as g4dn.xlarge, or set gpu = false."
  }

  validation {
    condition     = try(var.machine.disk_size >= 8 && var.machine.disk_size <= 16384 && floor(var.machine.disk_size) == var.machine.disk_size, false)
    error_message = "disk_size of ${var.name}: ${var.machine.disk_size} is no whole number of GB from 8 to 16384."
  }

  validation {
    condition     = var.machine.image == null || can(regex("^ami-([0-9a-f]{8}|[0-9a-f]{17})$", var.machine.image))
    error_message = "image of ${var.name}: '${coalesce(var.machine.image, "-")}' is no AMI id such as ami-0123456789abcdef0."
  }

  validation {
    condition     = var.machine.vpc_id == null || can(regex("^vpc-[0-9a-f]{8,17}$", var.machine.vpc_id))
    error_message = "vpc_id of ${var.name}: '${coalesce(var.machine.vpc_id, "-")}' is no VPC's id such as vpc-0123456789abcdef0."
  }

  validation {
    condition     = var.machine.subnet_id == null || can(regex("^subnet-[0-9a-f]{8,17}$", var.machine.subnet_id))
    error_message = "subnet_id of ${var.name}: '${coalesce(var.machine.subnet_id, "-")}' is no subnet's id such as subnet-0123456789abcdef0."
  }

  validation {
    condition     = (var.machine.vpc_id == null) == (var.machine.subnet_id == null)
    error_message = "${var.machine.vpc_id == null ? "vpc_id" : "subnet_id"} of ${var.name} is missing: an existing network takes both vpc_id and subnet_id."
  }

  validation {
    condition     = var.machine.ssh_from == null || can(cidrnetmask(var.machine.ssh_from))
    error_message = "ssh_from of ${var.name}: '${coalesce(var.machine.ssh_from, "-")}' is no IPv4 network such as 198.51.100.0/24."
  }

  validation {
    condition     = try(tonumber(split("/", var.machine.ssh_from)[1]) >= 16, true)
    error_message = "ssh_from of ${var.name}: '${coalesce(var.machine.ssh_from, "-")}' is wider than /16: name the one network that the operator is in, or leave it out and use Session Manager."
  }

  validation {
    condition     = try(cidrhost(var.machine.ssh_from, 0) == split("/", var.machine.ssh_from)[0], true)
    error_message = "ssh_from of ${var.name}: '${coalesce(var.machine.ssh_from, "-")}' is a host's address: write ${try("${cidrhost(var.machine.ssh_from, 0)}/${split("/", var.machine.ssh_from)[1]}", "")}."
  }

  validation {
    condition = alltrue([for rule in var.machine.egress :
      can(cidrnetmask(rule.cidr)) && try(cidrhost(rule.cidr, 0) == split("/", rule.cidr)[0], false)
    ])
    error_message = "egress of ${var.name}: ${join(", ", [for rule in var.machine.egress : try("'${rule.cidr}'", "null") if !(
      can(cidrnetmask(rule.cidr)) && try(cidrhost(rule.cidr, 0) == split("/", rule.cidr)[0], false)
    )])} is no IPv4 network such as 198.51.100.7/32."
  }

  validation {
    condition     = alltrue([for rule in var.machine.egress : try(rule.port >= 1 && rule.port <= 65535 && floor(rule.port) == rule.port, false)])
    error_message = "egress of ${var.name}: port ${join(", ", [for rule in var.machine.egress : try(tostring(rule.port), "null") if !try(rule.port >= 1 && rule.port <= 65535 && floor(rule.port) == rule.port, false)])} is no port from 1 to 65535."
  }

  validation {
    condition     = alltrue([for rule in var.machine.egress : contains(["tcp", "udp"], rule.protocol)])
    error_message = "egress of ${var.name}: protocol '${join("', '", [for rule in var.machine.egress : rule.protocol if !contains(["tcp", "udp"], rule.protocol)])}' is unknown: use tcp or udp."
  }

  validation {
    condition     = alltrue([for rule in var.machine.egress : can(regex("^[A-Za-z0-9 ._:/()#,@+=&;!$*\\[\\]-]{1,255}$", rule.description))])
    error_message = "egress of ${var.name}: description ${join(", ", [for rule in var.machine.egress : try("'${rule.description}'", "null") if !can(regex("^[A-Za-z0-9 ._:/()#,@+=&;!$*\\[\\]-]{1,255}$", rule.description))])} is not what Amazon takes: use 1 to 255 letters, digits, spaces and ._-:/()#,@[]+=&;!$*."
  }

  validation {
    condition     = length(var.machine.egress) == length(distinct([for rule in var.machine.egress : "${rule.protocol} ${try(rule.cidr, "")} ${try(rule.port, "")}"]))
    error_message = "egress of ${var.name}: ${join(", ", [for rule, times in { for rule in var.machine.egress : "${rule.protocol} ${try(rule.cidr, "")} ${try(rule.port, "")}" => true... } : rule if length(times) > 1])} stands there twice: remove one."
  }
}
