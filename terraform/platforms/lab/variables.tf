variable "federation" {
  description = "Name of the federation: lowercase letters, digits and inner hyphens, 32 at most."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$", var.federation))
    error_message = "federation: '${var.federation}' is no host name: use lowercase letters, digits and inner hyphens, 32 at most."
  }
}

variable "federation_dir" {
  description = "Absolute path of the federation's folder, with data/, secrets/ and .state/."
  type        = string

  validation {
    condition     = startswith(var.federation_dir, "/") && !can(regex("[[:cntrl:]]|\\{[{%#]", var.federation_dir))
    error_message = "federation_dir: '${var.federation_dir}' is no absolute path."
  }
}

variable "ssh_public_key_file" {
  description = "Public key that may log in to the hosts as root. Default: secrets/ssh/id_ed25519.pub of the federation."
  type        = string
  default     = null

  validation {
    condition     = can(regex("^(ssh-|ecdsa-|sk-)[^ ]+ [^ ]+", file(coalesce(var.ssh_public_key_file, "${var.federation_dir}/secrets/ssh/id_ed25519.pub"))))
    error_message = "ssh_public_key_file: '${coalesce(var.ssh_public_key_file, "${var.federation_dir}/secrets/ssh/id_ed25519.pub")}' holds no public key: ssh-keygen -t ed25519 -N '' -f secrets/ssh/id_ed25519 in the federation's folder makes one."
  }
}

variable "suite" {
  description = "Debian suite of the hosts: bookworm or trixie."
  type        = string
  default     = "bookworm"

  validation {
    condition     = contains(["bookworm", "trixie"], var.suite)
    error_message = "suite: '${var.suite}' is unknown: use bookworm or trixie."
  }
}

variable "network" {
  description = "The federation's network as a CIDR, /12 to /24, used by nothing else on this machine, which gets the first address."
  type        = string
  default     = "10.77.0.0/16"

  validation {
    condition     = can(cidrnetmask(var.network)) && try(tonumber(split("/", var.network)[1]) >= 12 && tonumber(split("/", var.network)[1]) <= 24, false)
    error_message = "network: '${var.network}' is no IPv4 network from /12 to /24, such as 10.77.0.0/16."
  }

  validation {
    condition     = try(cidrhost(var.network, 0) == split("/", var.network)[0], true)
    error_message = "network: '${var.network}' is a host's address: write ${try(cidrhost(var.network, 0), "")}/${try(split("/", var.network)[1], "")}."
  }
}

variable "coordinator" {
  description = "The coordinator: its name, and its IPv4 address inside `network` (default: the tenth)."
  type = object({
    name    = optional(string, "coordinator")
    address = optional(string)
  })
  default  = {}
  nullable = false

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$", var.coordinator.name))
    error_message = "coordinator.name: '${var.coordinator.name}' is no host name: use lowercase letters, digits and inner hyphens, 32 at most."
  }

  validation {
    condition     = !contains(["all", "ungrouped", "localhost", "superlink", "gateway", "supernode", "monitoring"], var.coordinator.name)
    error_message = "coordinator.name: '${var.coordinator.name}' is reserved: give it another name."
  }
}

variable "sites" {
  description = <<-EOT
    The hospitals, one entry each; the key is the host's name. An entry may be empty; it may set
    `address`: IPv4 address inside `network` (default: derived from the name, so that it stays when others come and go);
    `data`: folder of this machine that the site sees as /srv/hospital, absolute or relative to the federation's folder
    (default: data/<site>, which is made if it is missing);
    `labels`: what a driver chooses sites by; `node_config`: what the apps at this site are told.
  EOT
  type = map(object({
    address     = optional(string)
    data        = optional(string)
    labels      = optional(map(string), {})
    node_config = optional(map(string), {})
  }))
  default  = {}
  nullable = false

  validation {
    condition     = !contains([for site in values(var.sites) : site == null], true)
    error_message = "sites: ${join(", ", [for name, site in var.sites : name if site == null])} is null: write {} for a site with nothing to set."
  }

  validation {
    condition     = alltrue([for name in keys(var.sites) : can(regex("^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$", name))])
    error_message = "sites: ${join(", ", [for name in keys(var.sites) : "'${name}'" if !can(regex("^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$", name))])} is no host name: use lowercase letters, digits and inner hyphens, 32 at most."
  }

  validation {
    condition     = length(setintersection(keys(var.sites), [var.coordinator.name, "all", "ungrouped", "localhost", "superlink", "gateway", "supernode", "monitoring"])) == 0
    error_message = "sites: '${join("', '", setintersection(keys(var.sites), [var.coordinator.name, "all", "ungrouped", "localhost", "superlink", "gateway", "supernode", "monitoring"]))}' is reserved: give the site another name."
  }

  validation {
    condition     = !contains([for site in values(var.sites) : try(trimspace(site.data), "-")], "")
    error_message = "sites: data of ${join(", ", [for name, site in var.sites : name if try(trimspace(site.data), "-") == ""])} is empty: name a folder, or leave it out."
  }

  validation {
    condition     = alltrue(flatten([for site in values(var.sites) : [for key in keys(try(site.labels, {})) : can(regex("^[A-Za-z0-9_-]{1,64}$", key))]]))
    error_message = "sites: label ${join(", ", flatten([for name, site in var.sites : [for key in keys(try(site.labels, {})) : "'${key}' of ${name}" if !can(regex("^[A-Za-z0-9_-]{1,64}$", key))]]))} is no key: use letters, digits, '_' and '-', 64 at most."
  }

  validation {
    condition     = alltrue(flatten([for site in values(var.sites) : [for key in keys(try(site.node_config, {})) : can(regex("^[A-Za-z0-9_-]{1,64}$", key))]]))
    error_message = "sites: node_config ${join(", ", flatten([for name, site in var.sites : [for key in keys(try(site.node_config, {})) : "'${key}' of ${name}" if !can(regex("^[A-Za-z0-9_-]{1,64}$", key))]]))} is no key: use letters, digits, '_' and '-', 64 at most."
  }

  validation {
    condition     = !contains(flatten([for site in values(var.sites) : [for key in keys(try(site.node_config, {})) : key]]), "data-path")
    error_message = "sites: node_config 'data-path' of ${join(", ", [for name, site in var.sites : name if can(site.node_config["data-path"])])} is set by Flowerbed to where the site has its data: set data instead."
  }

  validation {
    condition = alltrue(flatten([for site in values(var.sites) : [
      for value in concat(try([coalesce(site.data)], []), values(try(site.labels, {})), values(try(site.node_config, {}))) :
      value != null && !can(regex("\\{[{%#]|[[:cntrl:]]", value))
    ]]))
    error_message = "sites: ${join(", ", flatten([for name, site in var.sites : [
      for key, value in merge(
        { data = try(coalesce(site.data), "") },
        { for key, value in try(site.labels, {}) : "labels.${key}" => value },
        { for key, value in try(site.node_config, {}) : "node_config.${key}" => value },
      ) : "${key} of ${name}" if value == null || can(regex("\\{[{%#]|[[:cntrl:]]", value))
    ]]))} is null or holds a template marker ({{, {%, {#) or a control character: remove it."
  }

  validation {
    condition     = !anytrue(flatten([for site in values(var.sites) : [for value in values(try(site.node_config, {})) : can(regex("[\"\\\\]", value))]]))
    error_message = "sites: ${join(", ", flatten([for name, site in var.sites : [for key, value in try(site.node_config, {}) : "node_config.${key} of ${name}" if can(regex("[\"\\\\]", value))]]))} holds a double quote or a backslash, which Flower's node config cannot carry: remove it."
  }
}

variable "monitored" {
  description = "Names of the machines that are monitored: the coordinator's, and those of sites, which get a node exporter alone."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = length(setsubtract(var.monitored, concat([var.coordinator.name], keys(var.sites)))) == 0
    error_message = "monitored: '${join("', '", setsubtract(var.monitored, concat([var.coordinator.name], keys(var.sites))))}' is no machine of this federation: name the coordinator or a site."
  }
}
