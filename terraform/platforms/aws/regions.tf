locals {
  # One line per region_*.tf: the network that its sites live in, unless `networks` says otherwise.
  regions = {
    eu-central-1 = "10.81.0.0/16"
    eu-north-1   = "10.82.0.0/16"
    eu-west-1    = "10.83.0.0/16"
    eu-west-3    = "10.84.0.0/16"
  }
}
