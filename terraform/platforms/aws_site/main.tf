locals {
  ssh_public_key = trimspace(file(coalesce(var.ssh_public_key_file, "${var.federation_dir}/secrets/ssh/id_ed25519.pub")))
}

provider "aws" {
  region = var.region

  default_tags {
    tags = { flowerbed = var.federation }
  }
}

module "network" {
  source = "../../modules/aws_network"
  count  = var.site.vpc_id == null ? 1 : 0

  federation        = var.federation
  cidr              = var.network.cidr
  availability_zone = var.network.availability_zone
  session_manager   = var.site.ssh_from == null
}

module "site" {
  source = "../../modules/aws_site"

  federation       = var.federation
  name             = var.name
  ssh_public_key   = local.ssh_public_key
  network          = one(module.network)
  gateway          = var.gateway
  monitoring       = var.monitoring
  machine          = var.site
  outbound_address = var.site.outbound_address
  labels           = var.site.labels
  node_config      = var.site.node_config
  data_path        = var.site.data_path
}
