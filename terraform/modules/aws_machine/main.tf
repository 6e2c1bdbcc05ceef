locals {
  label = "flowerbed-${var.federation}-${var.name}"
  tags  = { Name = local.label }

  systems = {
    debian-12      = { owner = "136693071363", image = "debian-12-%s-*", user = "admin", python = "3.11" }
    debian-13      = { owner = "136693071363", image = "debian-13-%s-*", user = "admin", python = "3.13" }
    "ubuntu-24.04" = { owner = "099720109477", image = "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-%s-server-*", user = "ubuntu", python = "3.12" }
  }
  system = local.systems[var.machine.os]

  instance_type = coalesce(var.machine.instance_type, var.machine.gpu ? "g4dn.xlarge" : "t3.medium")
  # Families such as t4g, m7gd or g5g have ARM processors, by the letter after the generation.
  arm = can(regex("^(a1|[a-z]+[0-9]+g[a-z]*)\\.", local.instance_type))

  session_manager = var.machine.ssh_from == null
  # In a hospital's own network the endpoints are its own matter.
  endpoints     = local.session_manager && var.machine.vpc_id == null
  install_agent = local.session_manager && startswith(var.machine.os, "debian")

  # A rule is known by what it opens: the order of `egress` means nothing.
  egress = { for rule in var.machine.egress : "${rule.protocol} ${rule.cidr} ${rule.port}" => rule }

  agent = "amazon-ssm-${data.aws_region.here.name}/latest/debian_${local.arm ? "arm64" : "amd64"}/amazon-ssm-agent.deb"
  # What Ansible needs to start: the right time, and, where Session Manager is the way in, its agent. Labels, node config
  # and the like are not in here: they would make the machine afresh.
  cloud_config = merge(
    {
      write_files = [
        # Amazon's clock is behind every network card and passes no security group; both files exist, one service reads its own.
        { path = "/etc/systemd/timesyncd.conf.d/amazon.conf", content = "[Time]\nNTP=169.254.169.123\n" },
        { path = "/etc/chrony/sources.d/amazon.sources", content = "server 169.254.169.123 prefer iburst\n" },
      ]
      runcmd = concat(
        [["sh", "-c", "systemctl try-restart systemd-timesyncd chrony 2>/dev/null || true"]],
        local.install_agent ? [["sh", "-c", <<-EOT
          set -e
          command -v amazon-ssm-agent && exit
          for try in 1 2 3 4 5 6 7 8 9 10; do
            python3 -c 'import sys, urllib.request; urllib.request.urlretrieve(*sys.argv[1:])' \
              https://s3.${data.aws_region.here.name}.amazonaws.com/${local.agent} /run/agent.deb && break
            sleep 15
          done
          dpkg --install /run/agent.deb
          systemctl enable --now amazon-ssm-agent
        EOT
        ]] : [],
      )
    },
  )
}

data "aws_region" "here" {}

data "aws_ami" "this" {
  count = var.machine.image == null ? 1 : 0

  owners      = [local.system.owner]
  most_recent = true

  filter {
    name   = "name"
    values = [format(local.system.image, local.arm ? "arm64" : "amd64")]
  }
}

resource "aws_kms_key" "disk" {
  #checkov:skip=CKV2_AWS_64:The default policy leaves the key to the account's own IAM, which is what a hospital expects
  description             = "Disk of ${local.label}"
  enable_key_rotation     = true
  deletion_window_in_days = 7
  tags                    = local.tags
}

resource "aws_key_pair" "operator" {
  key_name   = local.label
  public_key = var.ssh_public_key
  tags       = local.tags
}

# Names of roles are one per account, whatever the region.
resource "aws_iam_role" "this" {
  count = local.session_manager ? 1 : 0

  name        = "${var.name}-${substr(sha256("${var.federation} ${data.aws_region.here.name} ${var.name}"), 0, 8)}"
  path        = "/flowerbed/${var.federation}/"
  description = "Lets Session Manager reach ${local.label}"
  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Action = "sts:AssumeRole", Principal = { Service = "ec2.amazonaws.com" } }]
  })
}

resource "aws_iam_role_policy_attachment" "session_manager" {
  count = local.session_manager ? 1 : 0

  role       = aws_iam_role.this[0].name
  policy_arn = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"
}

resource "aws_iam_instance_profile" "this" {
  count = local.session_manager ? 1 : 0

  name = aws_iam_role.this[0].name
  path = aws_iam_role.this[0].path
  role = aws_iam_role.this[0].name
}

resource "aws_security_group" "this" {
  name        = local.label
  description = "All that reaches or leaves ${local.label}"
  vpc_id      = coalesce(var.machine.vpc_id, try(var.network.vpc_id, null))
  tags        = local.tags
}

resource "aws_vpc_security_group_ingress_rule" "ssh" {
  count = local.session_manager ? 0 : 1

  security_group_id = aws_security_group.this.id
  description       = "SSH from the operator"
  cidr_ipv4         = var.machine.ssh_from
  ip_protocol       = "tcp"
  from_port         = 22
  to_port           = 22
}

resource "aws_vpc_security_group_egress_rule" "operator" {
  for_each = local.egress

  security_group_id = aws_security_group.this.id
  description       = each.value.description
  cidr_ipv4         = each.value.cidr
  ip_protocol       = each.value.protocol
  from_port         = each.value.port
  to_port           = each.value.port
}

resource "aws_vpc_security_group_egress_rule" "session_manager" {
  count = local.endpoints ? 1 : 0

  security_group_id            = aws_security_group.this.id
  description                  = "Session Manager"
  referenced_security_group_id = var.network.session_manager.security_group_id
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
}

resource "aws_vpc_security_group_egress_rule" "agent" {
  count = local.endpoints && local.install_agent ? 1 : 0

  security_group_id = aws_security_group.this.id
  description       = "The Session Manager agent, from Amazon's bucket"
  prefix_list_id    = var.network.session_manager.prefix_list_id
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_instance" "this" {
  #checkov:skip=CKV_AWS_126:Amazon charges for measuring every minute: the variable monitoring switches it on
  ami                    = coalesce(var.machine.image, try(data.aws_ami.this[0].id, null))
  instance_type          = local.instance_type
  subnet_id              = coalesce(var.machine.subnet_id, try(var.network.subnet_id, null))
  vpc_security_group_ids = [aws_security_group.this.id]
  key_name               = aws_key_pair.operator.key_name
  iam_instance_profile   = one(aws_iam_instance_profile.this[*].name)
  ebs_optimized          = true
  monitoring             = var.monitoring
  user_data              = "#cloud-config\n${yamlencode(local.cloud_config)}"
  tags                   = local.tags

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  root_block_device {
    volume_type = "gp3"
    volume_size = var.machine.disk_size
    encrypted   = true
    kms_key_id  = aws_kms_key.disk.arn
    tags        = local.tags
  }

  lifecycle {
    # Both matter at the first boot only: neither a new image nor a new agent makes a machine afresh.
    ignore_changes = [ami, user_data]
  }

  # The first boot installs the agent: until then the way to it must be open.
  depends_on = [
    aws_iam_role_policy_attachment.session_manager,
    aws_vpc_security_group_egress_rule.agent,
    aws_vpc_security_group_egress_rule.operator,
    aws_vpc_security_group_egress_rule.session_manager,
  ]
}
