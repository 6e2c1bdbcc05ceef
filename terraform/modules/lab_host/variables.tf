variable "federation" {
  description = "Name of the federation that the host belongs to."
  type        = string
}

variable "name" {
  description = "The host's name."
  type        = string
}

variable "address" {
  description = "The host's IPv4 address, inside `network`."
  type        = string
}

variable "network" {
  description = "The federation's network as a CIDR; this machine has its first address."
  type        = string
}

variable "data" {
  description = "Folder of this machine that the host sees as /srv/hospital. Null for none."
  type        = string
  default     = null
}

variable "make_data" {
  description = "Make the folder `data` if it is missing, and remove it with the host if it is empty then."
  type        = bool
  default     = false
}

variable "suite" {
  description = "Debian suite of the host."
  type        = string
  default     = "bookworm"
}

variable "cpu_weight" {
  description = "The host's part of the processors beside others of its federation, 1 to 10000. A standing host keeps its own."
  type        = number
  default     = 100

  validation {
    condition     = var.cpu_weight >= 1 && var.cpu_weight <= 10000 && floor(var.cpu_weight) == var.cpu_weight
    error_message = "cpu_weight is ${var.cpu_weight}: use a whole number from 1 to 10000."
  }
}

variable "ssh_public_key_file" {
  description = "Public key that may log in as root."
  type        = string
}

variable "keys_dir" {
  description = "Folder of this machine that receives `<name>.pub`, the public half of the host's SSH key."
  type        = string
}
