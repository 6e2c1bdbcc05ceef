terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.100"
    }
  }

  # `flowerbed` keeps the state in the federation's folder: terraform init -backend-config=path=<federation>/.state/...
  backend "local" {}
}
