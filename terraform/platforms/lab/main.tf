locals {
  ssh_public_key_file = coalesce(var.ssh_public_key_file, "${var.federation_dir}/secrets/ssh/id_ed25519.pub")
  keys_dir            = "${var.federation_dir}/.state/host_keys"

  network_prefix = tonumber(split("/", var.network)[1])
  network_size   = pow(2, 32 - local.network_prefix)

  # This machine has the network's first address; sites that name none get one from the sixteenth on, by their name's hash.
  addresses = merge(
    { for name, site in var.sites : name => coalesce(
      site.address,
      cidrhost(var.network, 16 + parseint(substr(sha256(name), 0, 8), 16) % (local.network_size - 17)),
    ) },
    { (var.coordinator.name) = coalesce(var.coordinator.address, cidrhost(var.network, 10)) },
  )
  reserved_addresses = [cidrhost(var.network, 0), cidrhost(var.network, 1), cidrhost(var.network, -1)]

  outside = [for name, address in local.addresses : "${address} of ${name}"
  if try(cidrhost("${address}/${local.network_prefix}", 0), "") != cidrhost(var.network, 0)]
  reserved = [for name, address in local.addresses : "${address} of ${name}" if contains(local.reserved_addresses, address)]
  shared = [for address, names in { for name, address in local.addresses : address => name... } :
  "${join(" and ", names)} have ${address}" if length(names) > 1]

  # fileexists() answers for files and errs for folders, the only way here to tell that a folder is there.
  no_folder = [for name, site in var.sites : "${local.data[name]} of ${name}"
  if try(trimspace(site.data), "") != "" && can(fileexists(local.data[name]))]

  # A folder beginning with "/" stays what it is; any other one is in the federation's folder.
  data = { for name, site in var.sites : name => (
    startswith(coalesce(site.data, "data/${name}"), "/") ? site.data : "${var.federation_dir}/${coalesce(site.data, "data/${name}")}"
  ) }
}

module "coordinator" {
  source = "../../modules/lab_host"

  federation          = var.federation
  name                = var.coordinator.name
  address             = local.addresses[var.coordinator.name]
  network             = var.network
  suite               = var.suite
  cpu_weight          = 10000 # elsewhere it has a machine of its own, here it shares one with all sites
  ssh_public_key_file = local.ssh_public_key_file
  keys_dir            = local.keys_dir
}

module "site" {
  source   = "../../modules/lab_host"
  for_each = var.sites

  federation          = var.federation
  name                = each.key
  address             = local.addresses[each.key]
  network             = var.network
  data                = local.data[each.key]
  make_data           = each.value.data == null
  suite               = var.suite
  ssh_public_key_file = local.ssh_public_key_file
  keys_dir            = local.keys_dir
}
