terraform {
  required_version = ">= 1.9"

  # `flowerbed` keeps the state in the federation's folder: terraform init -backend-config=path=<federation>/.state/...
  backend "local" {}
}
