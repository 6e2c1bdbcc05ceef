variable "federation" {
  description = "Name of the federation that the machine belongs to."
  type        = string
}

variable "name" {
  description = "The machine's name."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$", var.name))
    error_message = "name: '${var.name}' is no host name: use lowercase letters, digits and inner hyphens, 32 at most."
  }

  validation {
    condition     = !contains(["all", "ungrouped", "localhost", "superlink", "gateway", "supernode", "monitoring"], var.name)
    error_message = "name: '${var.name}' is reserved: give the machine another name."
  }
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
  description = "The machine, as in aws_machine, which has the defaults and says what is wrong with a value."
  type = object({
    instance_type = optional(string)
    gpu           = optional(bool)
    disk_size     = optional(number)
    os            = optional(string)
    image         = optional(string)
    vpc_id        = optional(string)
    subnet_id     = optional(string)
    ssh_from      = optional(string)
    egress = optional(list(object({
      cidr        = string
      port        = number
      protocol    = optional(string)
      description = string
    })))
  })
  default  = {}
  nullable = false
}

variable "gateway_port" {
  description = "Port of the gateway, the one port that is open to the sites."
  type        = number
  default     = 443

  validation {
    condition     = try(var.gateway_port >= 1 && var.gateway_port <= 65535 && floor(var.gateway_port) == var.gateway_port, false)
    error_message = "gateway_port of ${var.name}: ${var.gateway_port} is no port from 1 to 65535."
  }
}

variable "clients" {
  description = "Who may reach the gateway: one IPv4 address and its description each, under a key that is known before the address is."
  type = map(object({
    address     = string
    description = string
  }))
  default = {}
}
