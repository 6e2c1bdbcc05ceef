variable "federation" {
  description = "Name of the federation that the network belongs to."
  type        = string
}

variable "cidr" {
  description = "The network as a CIDR; all of it is one subnet."
  type        = string
}

variable "availability_zone" {
  description = "Zone of the subnet, such as eu-central-1b, where machines of a type are to be had in some zones only. Null: Amazon chooses."
  type        = string
  default     = null
}

variable "session_manager" {
  description = "Make the endpoints by which machines without a way in are reached by Session Manager."
  type        = bool
  default     = false
}
