provider "aws" {
  alias  = "eu_central_1"
  region = "eu-central-1"

  default_tags {
    tags = local.tags
  }
}

module "network_eu_central_1" {
  source    = "../../modules/aws_network"
  providers = { aws = aws.eu_central_1 }
  count     = length(local.residents_of["eu-central-1"]) > 0 ? 1 : 0

  federation        = var.federation
  cidr              = local.networks["eu-central-1"].cidr
  availability_zone = local.networks["eu-central-1"].availability_zone
  session_manager   = anytrue([for site in values(local.residents_of["eu-central-1"]) : site.ssh_from == null])
}

module "sites_eu_central_1" {
  source    = "../../modules/aws_site"
  providers = { aws = aws.eu_central_1 }
  for_each  = local.sites_in["eu-central-1"]

  federation       = var.federation
  name             = each.key
  ssh_public_key   = local.ssh_public_key
  network          = one(module.network_eu_central_1)
  gateway          = module.coordinator.gateway
  monitoring       = var.monitoring
  machine          = each.value
  outbound_address = each.value.outbound_address
  labels           = each.value.labels
  node_config      = each.value.node_config
  data_path        = each.value.data_path
}
