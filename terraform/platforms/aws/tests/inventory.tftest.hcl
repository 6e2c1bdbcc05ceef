# What the platform makes of its variables, with the provider's real schema and no account: nothing is applied.

mock_provider "aws" {}
mock_provider "aws" {
  alias = "eu_central_1"
}
mock_provider "aws" {
  alias = "eu_north_1"
}
mock_provider "aws" {
  alias = "eu_west_1"
}
mock_provider "aws" {
  alias = "eu_west_3"
}

variables {
  federation     = "aws"
  federation_dir = abspath("tests/federation") # holds nothing but a public key
}

run "a_site_needs_no_more_than_a_name" {
  command = plan

  variables {
    sites = { hospital-a = {}, hospital-b = { region = "eu-west-1" } }
  }

  assert {
    condition     = output.inventory.schema == 1
    error_message = "The schema version is what Python checks first."
  }
}
