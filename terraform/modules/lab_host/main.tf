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

# FLOWERBED_PYTHON, from the environment, is the Python that runs `flowerbed.lab`; its standard library is enough.
# It is no variable, for a destroy would then use the one that the state remembers, which may be gone by then.
resource "terraform_data" "host" {
  # What a destroy needs: a provisioner for it sees nothing but its own resource.
  input = {
    FEDERATION = var.federation
    NAME       = var.name
  }

  triggers_replace = merge(local.arguments, { KEY_FILE = filesha256(var.ssh_public_key_file) })

  provisioner "local-exec" {
    command = <<-EOT
      exec "$${FLOWERBED_PYTHON:-python3}" -m flowerbed.lab create --federation "$FEDERATION" --name "$NAME" \
        --address "$ADDRESS" --network "$NETWORK" --suite "$SUITE" --data "$DATA" $MAKE_DATA --cpu-weight "$CPU_WEIGHT" \
        --ssh-key-file "$KEY_FILE" --keys-dir "$KEYS_DIR"
    EOT
    environment = merge(local.arguments, {
      MAKE_DATA  = var.make_data ? "--make-data" : ""
      CPU_WEIGHT = var.cpu_weight
      PYTHONPATH = "${path.module}/../../../scripts"
    })
  }

  provisioner "local-exec" {
    when        = destroy
    command     = "exec \"$${FLOWERBED_PYTHON:-python3}\" -m flowerbed.lab destroy --federation \"$FEDERATION\" --name \"$NAME\""
    environment = merge(self.input, { PYTHONPATH = "${path.module}/../../../scripts" })
  }
}
