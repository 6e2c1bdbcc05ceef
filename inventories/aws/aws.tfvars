# The machines of this federation in one AWS account: the coordinator and one entry per hospital. A new hospital is one
# more entry. `flowerbed up aws` makes them what this file says; Amazon's credentials come from the environment or from
# ~/.aws, as for any program (AWS_PROFILE), and never from here.

sites = {
  hospital-a = { labels = { region = "south" } }
  hospital-b = { region = "eu-west-3", labels = { region = "west" } }
  hospital-c = { region = "eu-north-1", labels = { region = "north" } }
}

# What an entry may set, all of it optional; `{}` is an entry too:
#
#   hospital-d = {
#     region        = "eu-west-1"             # else the coordinator's
#     instance_type = "m7i.xlarge"            # else t3.medium, or g4dn.xlarge where a GPU is wanted
#     gpu           = true                    # refuses instance types that have none
#     disk_size     = 100                     # GB, else 30; always encrypted with a key of its own
#     os            = "debian-12"             # or debian-13, ubuntu-24.04; image = "ami-..." for one of your own of it
#     ssh_from      = "198.51.100.0/24"       # the one network that SSH is open to; else Session Manager, nothing open
#     data_path     = "/srv/hospital"         # folder on the machine with the site's data
#     labels        = { region = "south" }    # what a driver chooses sites by
#     node_config   = { partition-id = "3" }  # what the apps at this site are told; numbers and true/false stay such
#
#     # A network that the hospital has already; outbound_address is that of its NAT, where it has one.
#     vpc_id           = "vpc-0123456789abcdef0"
#     subnet_id        = "subnet-0123456789abcdef0"
#     outbound_address = "203.0.113.7"
#
#     # What the machine may reach beside the coordinator's gateway. Amazon's own name servers and clock need no entry.
#     egress = [{ cidr = "10.20.0.53/32", port = 53, protocol = "udp", description = "name server of the hospital" }]
#   }
#
# labels, node_config and data_path never touch a machine. Another region or subnet makes it afresh; os and image matter
# when a machine is made.

# The coordinator takes the same settings, and these. Ansible installs nginx on it, which Debian's
# image lacks; with an `image` that has nginx it needs no way out.
coordinator = {
  # name         = "coordinator"
  # region       = "eu-central-1"
  # gateway_port = 443
  # network      = "10.80.0.0/24"
  egress = [
    { cidr = "0.0.0.0/0", port = 80, description = "Debian packages, signed by Debian" },
    { cidr = "0.0.0.0/0", port = 443, description = "Debian packages, from mirrors that use TLS" },
  ]
}

# The networks that are made for the sites of a region; none may overlap another one.
# networks = { eu-central-1 = { cidr = "10.81.0.0/16", availability_zone = "eu-central-1b" } }

# Hospitals that run aws_site in an account of their own, or a machine of any other kind: what address they come from.
# They are told the output `gateway`.
# gateway_clients = { hospital-x = "203.0.113.8" }

# Prometheus, alerts and a status page on the coordinator (`flowerbed dashboard`); a site gets a node exporter.
# monitored = ["coordinator"]
