locals {
  ssh_public_key = trimspace(file(coalesce(var.ssh_public_key_file, "${var.federation_dir}/secrets/ssh/id_ed25519.pub")))
  tags           = { flowerbed = var.federation }

  # Every region of regions.tf; Terraform cannot loop over providers, nor over the modules that use one each.
  sites = merge(
    module.sites_eu_central_1,
    module.sites_eu_north_1,
    module.sites_eu_west_1,
    module.sites_eu_west_3,
  )

  networks = { for region, cidr in local.regions : region => {
    cidr              = coalesce(try(var.networks[region].cidr, null), cidr)
    availability_zone = try(var.networks[region].availability_zone, null)
  } }

  # The sites of each region, and those of them that live in our own network there.
  sites_in = { for region in keys(local.regions) : region => {
    for name, site in var.sites : name => site if coalesce(site.region, var.coordinator.region) == region
  } }
  residents_of = { for region, sites in local.sites_in : region => {
    for name, site in sites : name => site if site.vpc_id == null
  } }

  # Sites at elastic addresses have one rule each. Other addresses are known beforehand, and two hospitals may share one.
  fixed = merge({ for name, site in var.sites : name => site.outbound_address if site.outbound_address != null }, var.gateway_clients)
  clients = merge(
    { for name, site in var.sites : name => { address = local.sites[name].address, description = name } if site.outbound_address == null },
    { for address, names in { for name, address in local.fixed : address => name... } : address => { address = address, description = join(", ", names) } },
  )

  ranges = merge({ coordinator = var.coordinator.network }, { for region, network in local.networks : region => network.cidr })
  # Two ranges overlap if they are one network by the shorter of their prefixes.
  overlaps = flatten([for number, one in keys(local.ranges) : [
    for other in slice(keys(local.ranges), number + 1, length(local.ranges)) :
    "${local.ranges[one]} of ${one} and ${local.ranges[other]} of ${other}" if length(distinct([
      for range in [local.ranges[one], local.ranges[other]] :
      try(cidrhost("${split("/", range)[0]}/${min([for range in [local.ranges[one], local.ranges[other]] : tonumber(split("/", range)[1])]...)}", 0), range)
    ])) == 1
  ]])
}

provider "aws" {
  region = var.coordinator.region

  default_tags {
    tags = local.tags
  }
}

module "coordinator_network" {
  source = "../../modules/aws_network"
  count  = var.coordinator.vpc_id == null ? 1 : 0

  federation        = "${var.federation}-coordinator"
  cidr              = var.coordinator.network
  availability_zone = var.coordinator.availability_zone
  session_manager   = var.coordinator.ssh_from == null
}

module "coordinator" {
  source = "../../modules/aws_coordinator"

  federation     = var.federation
  name           = var.coordinator.name
  ssh_public_key = local.ssh_public_key
  network        = one(module.coordinator_network)
  monitoring     = var.monitoring
  machine        = var.coordinator
  gateway_port   = var.coordinator.gateway_port
  clients        = local.clients
}
