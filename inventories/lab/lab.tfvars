# The machines of this federation: the coordinator and one entry per hospital. A new hospital is one more entry.
# `flowerbed up lab` makes them what this file says.

sites = {
  hospital-a = { labels = { region = "north" } }
  hospital-b = { labels = { region = "north" } }
  hospital-c = { labels = { region = "south" } }
}

# What an entry may set, all of it optional; `{}` is an entry too:
#
#   hospital-d = {
#     address     = "10.77.4.4"             # inside the network; else derived from the name, and the same for ever
#     data        = "/srv/hospitals/d"      # what the site sees as /srv/hospital; else data/hospital-d in this folder
#     labels      = { region = "south" }    # what a driver chooses sites by
#     node_config = { partition-id = "3" }  # what the apps at this site are told; numbers and true/false stay such
#   }
#
# Another address or data folder makes a site's machine afresh; labels and node_config do not.

# The network; it must be used by nothing else on this machine, which gets its first address.
# network = "10.77.0.0/16"

# The coordinator's name and address.
# coordinator = { name = "coordinator", address = "10.77.0.10" }

# Debian's release on the machines: bookworm or trixie.
# suite = "bookworm"

# Prometheus, alerts and a status page on the coordinator (`flowerbed dashboard`); a site gets a node exporter.
# monitored = ["coordinator"]
