locals {
  arguments = {
    FEDERATION = var.federation
    NAME       = var.name
    ADDRESS    = var.address
    NETWORK    = var.network
    SUITE      = var.suite
    DATA       = var.data == null ? "" : var.data
    KEY_FILE   = var.ssh_public_key_file
    KEYS_DIR   = var.keys_dir
  }
}

resource "terraform_data" "host" {
  # What a destroy needs: a provisioner for it sees nothing but its own resource.
  input = {
    FEDERATION = var.federation
    NAME       = var.name
    PYTHON     = var.python
    PYTHONPATH = abspath("${path.module}/../../../scripts")
  }

  triggers_replace = merge(local.arguments, { KEY_FILE = filesha256(var.ssh_public_key_file) })

  provisioner "local-exec" {
    command     = <<-EOT
      exec "$PYTHON" -m flowerbed.lab create --federation "$FEDERATION" --name "$NAME" --address "$ADDRESS" \
        --network "$NETWORK" --suite "$SUITE" --data "$DATA" $MAKE_DATA --ssh-key-file "$KEY_FILE" --keys-dir "$KEYS_DIR"
    EOT
    environment = merge(self.input, local.arguments, { MAKE_DATA = var.make_data ? "--make-data" : "" })
  }

  provisioner "local-exec" {
    when        = destroy
    command     = "exec \"$PYTHON\" -m flowerbed.lab destroy --federation \"$FEDERATION\" --name \"$NAME\""
    environment = self.input
  }
}
