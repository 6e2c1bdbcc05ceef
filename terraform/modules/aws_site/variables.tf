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

variable "gateway" {
  description = "The coordinator's gateway, IPv4 address and port: all that the site reaches by itself."
  type = object({
    address = string
    port    = optional(number, 443)
  })
}

variable "outbound_address" {
  description = "IPv4 address that the existing network of `vpc_id` shows to the outside, where it is not the machine's own; the machine then gets no elastic address."
  type        = string
  default     = null

  validation {
    condition     = var.outbound_address == null || can(cidrnetmask("${var.outbound_address}/32"))
    error_message = "outbound_address of ${var.name}: '${coalesce(var.outbound_address, "-")}' is no IPv4 address."
  }

  validation {
    condition     = var.outbound_address == null || var.machine.vpc_id != null
    error_message = "outbound_address of ${var.name} is for a network that exists: set vpc_id and subnet_id too, or leave it out."
  }
}

variable "data_path" {
  description = "Folder on the machine where the site's data is; null if it has none."
  type        = string
  default     = null

  validation {
    condition     = var.data_path == null || can(regex("^/[^[:cntrl:]]*[^/[:cntrl:]]$", var.data_path)) && !can(regex("\\{[{%#]", var.data_path))
    error_message = "data_path of ${var.name}: '${coalesce(var.data_path, "-")}' is no absolute path, or holds a template marker ({{, {%, {#) or a control character."
  }
}

variable "labels" {
  description = "What a driver chooses sites by; no machine changes with them."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for key in keys(var.labels) : can(regex("^[A-Za-z0-9_-]{1,64}$", key))])
    error_message = "label ${join(", ", [for key in keys(var.labels) : "'${key}'" if !can(regex("^[A-Za-z0-9_-]{1,64}$", key))])} of ${var.name} is no key: use letters, digits, '_' and '-', 64 at most."
  }

  validation {
    condition     = alltrue([for value in values(var.labels) : value != null && !can(regex("\\{[{%#]|[[:cntrl:]]", value))])
    error_message = "${join(", ", [for key, value in var.labels : "labels.${key}" if value == null || can(regex("\\{[{%#]|[[:cntrl:]]", value))])} of ${var.name} is null or holds a template marker ({{, {%, {#) or a control character: remove it."
  }
}

variable "node_config" {
  description = "What the apps at this site are told; no machine changes with it."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for key in keys(var.node_config) : can(regex("^[A-Za-z0-9_-]{1,64}$", key))])
    error_message = "node_config ${join(", ", [for key in keys(var.node_config) : "'${key}'" if !can(regex("^[A-Za-z0-9_-]{1,64}$", key))])} of ${var.name} is no key: use letters, digits, '_' and '-', 64 at most."
  }

  validation {
    condition     = !contains(keys(var.node_config), "data-path")
    error_message = "node_config 'data-path' of ${var.name} is set by Flowerbed to where the site has its data: set data_path instead."
  }

  validation {
    condition     = alltrue([for value in values(var.node_config) : value != null && !can(regex("\\{[{%#]|[[:cntrl:]]", value))])
    error_message = "${join(", ", [for key, value in var.node_config : "node_config.${key}" if value == null || can(regex("\\{[{%#]|[[:cntrl:]]", value))])} of ${var.name} is null or holds a template marker ({{, {%, {#) or a control character: remove it."
  }

  validation {
    condition     = !anytrue([for value in values(var.node_config) : can(regex("[\"\\\\]", value))])
    error_message = "${join(", ", [for key, value in var.node_config : "node_config.${key}" if can(regex("[\"\\\\]", value))])} of ${var.name} holds a double quote or a backslash, which Flower's node config cannot carry: remove it."
  }
}
