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
  description = "Public key that may log in to the machines. Default: secrets/ssh/id_ed25519.pub of the federation."
  type        = string
  default     = null

  validation {
    condition     = can(regex("^(ssh-ed25519|ssh-rsa) [^ ]+", file(coalesce(var.ssh_public_key_file, "${var.federation_dir}/secrets/ssh/id_ed25519.pub"))))
    error_message = "ssh_public_key_file: '${coalesce(var.ssh_public_key_file, "${var.federation_dir}/secrets/ssh/id_ed25519.pub")}' holds no ed25519 or RSA public key, which are what Amazon takes: ssh-keygen -t ed25519 -N '' -f secrets/ssh/id_ed25519 in the federation's folder makes one."
  }
}

variable "monitoring" {
  description = "Measure the machines every minute instead of every five; Amazon charges for it."
  type        = bool
  default     = false
}

variable "coordinator" {
  description = <<-EOT
    The coordinator: its `name`, its `region`, the port of the gateway, the `network` that is made for it alone and the
    `availability_zone` of that, and the machine as in `sites`.
  EOT
  type = object({
    name              = optional(string, "coordinator")
    region            = optional(string, "eu-central-1")
    gateway_port      = optional(number, 443)
    network           = optional(string, "10.80.0.0/24")
    availability_zone = optional(string)
    instance_type     = optional(string)
    gpu               = optional(bool)
    disk_size         = optional(number)
    os                = optional(string)
    image             = optional(string)
    vpc_id            = optional(string)
    subnet_id         = optional(string)
    ssh_from          = optional(string)
    egress = optional(list(object({
      cidr        = string
      port        = number
      protocol    = optional(string)
      description = string
    })))
  })
  default  = {}
  nullable = false

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.coordinator.region))
    error_message = "coordinator.region: '${var.coordinator.region}' is no region such as eu-central-1."
  }

  validation {
    condition     = can(cidrnetmask(var.coordinator.network)) && try(tonumber(split("/", var.coordinator.network)[1]) >= 16 && tonumber(split("/", var.coordinator.network)[1]) <= 28, false)
    error_message = "coordinator.network: '${var.coordinator.network}' is no IPv4 network from /16 to /28, such as 10.80.0.0/24."
  }

  validation {
    condition     = try(cidrhost(var.coordinator.network, 0) == split("/", var.coordinator.network)[0], true)
    error_message = "coordinator.network: '${var.coordinator.network}' is a host's address: write ${try("${cidrhost(var.coordinator.network, 0)}/${split("/", var.coordinator.network)[1]}", "")}."
  }
}

variable "networks" {
  description = "Per region: the `cidr` of the network that is made for its sites, and the `availability_zone` of that (default: Amazon chooses)."
  type = map(object({
    cidr              = optional(string)
    availability_zone = optional(string)
  }))
  default  = {}
  nullable = false

  validation {
    condition     = length(setsubtract(keys(var.networks), keys(local.regions))) == 0
    error_message = "networks: region '${join("', '", setsubtract(keys(var.networks), keys(local.regions)))}' is unknown: there are ${join(", ", keys(local.regions))}, and README.md says how to add one."
  }

  validation {
    condition = alltrue([for network in values(var.networks) : try(
      can(cidrnetmask(network.cidr)) && tonumber(split("/", network.cidr)[1]) >= 16 && tonumber(split("/", network.cidr)[1]) <= 28,
      network.cidr == null,
    )])
    error_message = "networks: cidr of ${join(", ", [for region, network in var.networks : region if !try(
      can(cidrnetmask(network.cidr)) && tonumber(split("/", network.cidr)[1]) >= 16 && tonumber(split("/", network.cidr)[1]) <= 28,
      network.cidr == null,
    )])} is no IPv4 network from /16 to /28, such as 10.81.0.0/16."
  }

  validation {
    condition     = alltrue([for network in values(var.networks) : try(cidrhost(network.cidr, 0) == split("/", network.cidr)[0], true)])
    error_message = "networks: cidr of ${join(", ", [for region, network in var.networks : region if !try(cidrhost(network.cidr, 0) == split("/", network.cidr)[0], true)])} is a host's address: clear the bits behind the prefix."
  }
}

variable "gateway_clients" {
  description = "Hospitals that run aws_site or a machine of their own: name and IPv4 address that the coordinator sees them come from."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for name in keys(var.gateway_clients) : can(regex("^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$", name))])
    error_message = "gateway_clients: ${join(", ", [for name in keys(var.gateway_clients) : "'${name}'" if !can(regex("^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$", name))])} is no host name: use lowercase letters, digits and inner hyphens, 32 at most."
  }

  validation {
    condition     = length(setintersection(keys(var.gateway_clients), keys(var.sites))) == 0
    error_message = "gateway_clients: '${join("', '", setintersection(keys(var.gateway_clients), keys(var.sites)))}' is a site, whose address is known: remove it."
  }

  validation {
    condition     = alltrue([for address in values(var.gateway_clients) : can(cidrnetmask("${address}/32")) && !startswith(coalesce(address, "-"), "0.")])
    error_message = "gateway_clients: ${join(", ", [for name, address in var.gateway_clients : "'${coalesce(address, "null")}' of ${name}" if !(can(cidrnetmask("${address}/32")) && !startswith(coalesce(address, "-"), "0."))])} is no IPv4 address such as 198.51.100.7."
  }
}

variable "sites" {
  description = <<-EOT
    The hospitals, one entry each; the key is the host's name. An entry may be empty; it may set
    `region` (default: the coordinator's), `instance_type` (default: t3.medium, with `gpu` g4dn.xlarge), `gpu`: the
    machine must have one, `disk_size` in GB, `os`: debian-12, debian-13 or ubuntu-24.04, `image`: an AMI of this system
    instead of its newest one;
    `vpc_id` and `subnet_id`: an existing network, `outbound_address`: the address that this network shows to the outside,
    where it is not the machine's own;
    `ssh_from`: the one network that SSH is open to (default: none, Session Manager is the way in); `egress`: what the
    site may reach beside the coordinator's gateway;
    `data_path`: the folder on the machine with the site's data; `labels`: what a driver chooses sites by; `node_config`:
    what the apps at this site are told.
  EOT
  type = map(object({
    region           = optional(string)
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
  }))
  default  = {}
  nullable = false

  validation {
    condition     = !contains([for site in values(var.sites) : site == null], true)
    error_message = "sites: ${join(", ", [for name, site in var.sites : name if site == null])} is null: write {} for a site with nothing to set."
  }

  validation {
    condition     = !contains(keys(var.sites), var.coordinator.name)
    error_message = "sites: '${var.coordinator.name}' is reserved: give the site another name."
  }

  validation {
    condition     = length(setsubtract([for site in values(var.sites) : try(coalesce(site.region, var.coordinator.region), var.coordinator.region)], keys(local.regions))) == 0
    error_message = "sites: region ${join(", ", [for name, site in var.sites : "'${try(coalesce(site.region, var.coordinator.region), "")}' of ${name}" if !contains(keys(local.regions), try(coalesce(site.region, var.coordinator.region), ""))])} is unknown: there are ${join(", ", keys(local.regions))}, and README.md says how to add one."
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
