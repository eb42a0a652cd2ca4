variable "target_regions" {
  description = "The regions that have a mirror, and a registry that it writes to."
  type        = set(string)

  validation {
    condition     = length(var.target_regions) > 0 && alltrue([for r in var.target_regions : can(regex("^[a-z]{2,4}(-[a-z]+){1,3}-[0-9]{1,2}$", r))])
    error_message = "Region codes, like eu-central-1."
  }
}

variable "source_region" {
  description = "The region where images are pushed."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2,4}(-[a-z]+){1,3}-[0-9]{1,2}$", var.source_region))
    error_message = "A region code, like us-west-2."
  }
}

variable "source_account" {
  description = "The account where images are pushed, if it is not this one."
  type        = string
  default     = null

  validation {
    condition     = can(regex("^[0-9]{12}$", coalesce(var.source_account, "000000000000")))
    error_message = "An account has twelve digits."
  }
}

variable "name_prefix" {
  description = "What the names of all resources begin with. The same as in the module source."
  type        = string
  default     = "ecr-mirror"

  validation {
    condition     = can(regex("^[A-Za-z][A-Za-z0-9-]{0,30}$", var.name_prefix))
    error_message = "A letter, and up to 30 letters, digits and hyphens."
  }
}

variable "roles" {
  description = "One role for all processes of a mirror (one), or one for fronts and one for workers (front-and-worker)."
  type        = string
  default     = "one"

  validation {
    condition     = contains(["one", "front-and-worker"], var.roles)
    error_message = "one or front-and-worker."
  }
}

variable "repository_prefixes" {
  description = "Beginnings of the names of the repositories that mirrors may write. None: all."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for p in var.repository_prefixes : can(regex("^[a-z0-9][a-z0-9._/-]*$", p))])
    error_message = "Beginnings of repository names, like team/."
  }
}

variable "kms_key_arn" {
  description = "The key of your own that the queues have."
  type        = string
  default     = null
}

variable "permissions_boundary" {
  description = "ARN of the policy that bounds the roles."
  type        = string
  default     = null
}

variable "runs_on" {
  description = "What the mirrors run on, which says who may assume their roles: pod-identity, irsa, ecs or ec2."
  type        = string
  default     = "pod-identity"

  validation {
    condition     = contains(["pod-identity", "irsa", "ecs", "ec2"], var.runs_on)
    error_message = "pod-identity, irsa, ecs or ec2."
  }
}

variable "oidc_providers" {
  description = "For irsa: each region's cluster's issuer without https://, like oidc.eks.eu-central-1.amazonaws.com/id/EXAMPLE."
  type        = map(string)
  default     = {}
}

variable "service_account" {
  description = "For irsa: the mirror's service account, as NAMESPACE:NAME. That of workers has -worker at its end."
  type        = string
  default     = "ecr-mirror:ecr-mirror"
}

variable "tags" {
  description = "Tags of the roles."
  type        = map(string)
  default     = {}
}
